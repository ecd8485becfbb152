// ldmatrix and mma: fragments, which lane has which element.
#include <algorithm>
#include <cstring>

#include "../include/SoftwareGPU/warp.hpp"
#include "block.hpp"
#include "product.hpp"

namespace SoftwareGPU {

namespace {

struct LoadArgument {
  u32* matrices;
  const void* row;
  Site site;
};

// PTX ISA 9.7.14.5.15: lane l gets of matrix m the elements (l / 4, l % 4 * 2) and the one
// after it; transposed: (l % 4 * 2, l / 4) and the one below it.
template <bool is_transposed>
void load(void* const arguments[lanes]) {
  u16 matrices[4][8][8];
  for (int lane = 0; lane < lanes; ++lane) {
    const LoadArgument& argument = *static_cast<LoadArgument*>(arguments[lane]);
    block.shared.check_load(Agent::warp(block.warp_of_thread()), argument.row, 16, argument.site);
    std::memcpy(matrices[lane / 8][lane % 8], argument.row, 16);
  }
  for (int lane = 0; lane < lanes; ++lane) {
    const int one = lane / 4, two = lane % 4 * 2;
    u32* result = static_cast<LoadArgument*>(arguments[lane])->matrices;
    for (int m = 0; m < 4; ++m) {
      const u16 low = is_transposed ? matrices[m][two][one] : matrices[m][one][two];
      const u16 high = is_transposed ? matrices[m][two + 1][one] : matrices[m][one][two + 1];
      result[m] = low | static_cast<u32>(high) << 16;
    }
  }
}

struct MultiplyArgument {
  float* d;
  const u32* a;
  u32 b0, b1;
};

// PTX ISA 9.7.14.5.8: lane l has of a, by register, rows l / 4 and 8 below, then the same 8
// columns on, each with columns l % 4 * 2 and the one after it; of b rows (l % 4 * 2, the
// one below) and 8 below, of column l / 4; of d what it has of a's first 8 columns.
template <Operand operand>
void multiply(void* const arguments[lanes]) {
  alignas(64) u16 a[16][16], b[16][8];
  alignas(64) float d[16][8];
  for (int lane = 0; lane < lanes; ++lane) {
    const MultiplyArgument& argument = *static_cast<MultiplyArgument*>(arguments[lane]);
    const int row = lane / 4, column = lane % 4 * 2;
    for (int i = 0; i < 4; ++i) std::memcpy(&a[row + i % 2 * 8][column + i / 2 * 8], &argument.a[i], 4);
    for (int i = 0; i < 2; ++i) {
      const u32 pair = i == 0 ? argument.b0 : argument.b1;
      b[column + i * 8][row] = static_cast<u16>(pair);
      b[column + i * 8 + 1][row] = static_cast<u16>(pair >> 16);
    }
    std::memcpy(&d[row][column], &argument.d[0], 8);
    std::memcpy(&d[row + 8][column], &argument.d[2], 8);
  }
  multiply_add_tile(operand, block.product, a, b, d);
  for (int lane = 0; lane < lanes; ++lane) {
    float* result = static_cast<MultiplyArgument*>(arguments[lane])->d;
    std::memcpy(&result[0], &d[lane / 4][lane % 4 * 2], 8);
    std::memcpy(&result[2], &d[lane / 4 + 8][lane % 4 * 2], 8);
  }
}

}  // namespace

}  // namespace SoftwareGPU

using namespace SoftwareGPU;

void load_matrix(u32 (&matrices)[4], const void* row, Site site) {
  LoadArgument argument{matrices, row, site};
  block.collective("ldmatrix", &argument, load<false>, site);
}

void load_matrix_transposed(u32 (&matrices)[4], const void* row, Site site) {
  LoadArgument argument{matrices, row, site};
  block.collective("ldmatrix.trans", &argument, load<true>, site);
}

void multiply_add_bf16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1, Site site) {
  MultiplyArgument argument{d, a, b0, b1};
  block.collective("mma of bf16", &argument, multiply<Operand::bf16>, site);
}

void multiply_add_fp16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1, Site site) {
  MultiplyArgument argument{d, a, b0, b1};
  block.collective("mma of fp16", &argument, multiply<Operand::fp16>, site);
}

float shuffle_xor(float value, int mask, Site site) {
  struct Argument {
    float in, out;
    int mask;
    Site site;
  } argument{value, 0, mask, site};
  block.collective(
      "shfl.bfly", &argument,
      [](void* const* arguments) {
        for (int lane = 0; lane < lanes; ++lane) {
          Argument& one = *static_cast<Argument*>(arguments[lane]);
          const int other = lane ^ (one.mask & (lanes - 1));
          one.out = static_cast<Argument*>(arguments[other])->in;
        }
      },
      site);
  return argument.out;
}
