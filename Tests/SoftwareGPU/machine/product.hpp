// d += a b of one tile, as exact as the manual promises and no more.
#pragma once

#include "../include/SoftwareGPU/formats.hpp"
#include "random.hpp"

namespace SoftwareGPU {

enum class Operand { bf16, fp16 };

/// What PTX ISA 9.7.14.5 leaves open, of one block: the order in which products are summed,
/// how sums are rounded, and whether subnormal numbers of fp32 count.
struct ProductRules {
  explicit ProductRules(Random& random);
  ProductRules() = default;

  u8 order[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  bool starts_with_d = true;
  bool truncates = false;
  bool flushes_subnormals = false;
};

void multiply_add_tile(Operand operand, const ProductRules& rules, const u16 (&a)[16][16], const u16 (&b)[16][8],
                       float (&d)[16][8]);

}  // namespace SoftwareGPU
