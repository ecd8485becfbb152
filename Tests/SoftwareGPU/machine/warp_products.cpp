#include "warp_products.hpp"

#include <cmath>
#include <cstring>

#include "../include/SoftwareGPU/hopper.hpp"
#include "block.hpp"
#include "swizzle.hpp"

namespace SoftwareGPU {

namespace {

/// PTX ISA, "Matrix-descriptor format": addresses without their lowest four bits.
struct Descriptor {
  explicit Descriptor(u64 bits)
      : start(static_cast<u32>(bits & 0x3FFF) << 4),
        leading(static_cast<u32>(bits >> 16 & 0x3FFF) << 4),
        stride(static_cast<u32>(bits >> 32 & 0x3FFF) << 4) {}

  /// Swizzled by 128 bytes, the pattern starting where it does in shared memory.
  static bool is_of_the_model(u64 bits) { return (bits & ~0x00003FFF3FFF3FFFu) == u64{1} << 62; }

  u32 start, leading, stride;
};

enum class Part { a, b };

}  // namespace

bool AsyncProduct::is_same_as(const AsyncProduct& other) const {
  return operand == other.operand && columns == other.columns && is_of_registers == other.is_of_registers &&
         adds == other.adds && a_tile == other.a_tile && b_tile == other.b_tile;
}

void WarpProducts::start_block(int warp) {
  warp_ = warp;
  is_fenced_ = false;
  issued_.clear();
  group_ends_.clear();
  carried_out_ = finished_ = finished_groups_ = 0;
  for (Accumulator& accumulator : accumulators_) accumulator.uses = 0;
}

// Calls `visit(part, row, 16 bytes of it, their address)`: the warp's 16 rows of a, k
// contiguous; b's columns with k contiguous, or its 16 rows with n contiguous.
template <class Visit>
void WarpProducts::each_operand_row(const AsyncProduct& product, Visit visit) const {
  unsigned char* const shared = block.shared.start();
  const auto at = [&](u32 address) { return swizzled(shared + address); };
  const Descriptor a(product.a_tile), b(product.b_tile);
  const auto of_k = [](const Descriptor& tile, int row, int half) {
    return tile.start + static_cast<u32>(row / 8) * tile.stride + static_cast<u32>(row % 8 * 128 + half * 16);
  };
  for (int row = 0; row < 16 && !product.is_of_registers; ++row)
    for (int half = 0; half < 2; ++half) visit(Part::a, row, half, at(of_k(a, warp_ % 4 * 16 + row, half)));
  if (!product.is_of_registers) {
    for (int n = 0; n < product.columns; ++n)
      for (int half = 0; half < 2; ++half) visit(Part::b, n, half, at(of_k(b, n, half)));
    return;
  }
  for (int k = 0; k < 16; ++k)
    for (int eight = 0; eight < product.columns / 8; ++eight)
      visit(Part::b, k, eight,
            at(b.start + static_cast<u32>(eight / 8) * b.leading + static_cast<u32>(k / 8) * b.stride +
               static_cast<u32>(k % 8 * 128 + eight % 8 * 16)));
}

// PTX ISA, "Register fragments for wgmma.mma_async.m64nNk16": d is as of mma, by 8 columns.
static void copy_accumulators(float (*values)[16][8], float* const (&d)[lanes], int columns, bool gives_back) {
  for (int lane = 0; lane < lanes; ++lane) {
    for (int i = 0; i < columns / 2; i += 2) {
      float* mine = &values[i / 4][lane / 4 + i / 2 % 2 * 8][lane % 4 * 2];
      if (gives_back) {
        std::memcpy(&d[lane][i], mine, 8);
      } else {
        std::memcpy(mine, &d[lane][i], 8);
        d[lane][i] = d[lane][i + 1] = std::nanf("");
      }
    }
  }
}

int WarpProducts::accumulator_of(const AsyncProduct& product, float* const (&d)[lanes], Site site) {
  int free = -1;
  for (int i = 0; i < most_accumulators; ++i) {
    Accumulator& one = accumulators_[i];
    if (one.uses == 0) {
      free = i;
    } else if (one.d[0] == d[0]) {
      if (one.columns != product.columns)
        block.fail(Fault::illegal_instruction, site, "products of %d and of %d columns in the same registers",
                   one.columns, product.columns);
      ++one.uses;
      return i;
    }
  }
  if (free < 0) block.fail(Fault::illegal_instruction, site, "more products under way than the model has accumulators");
  Accumulator& one = accumulators_[free];
  std::memcpy(one.d, d, sizeof one.d);
  one.columns = product.columns;
  one.uses = 1;
  copy_accumulators(one.values, d, one.columns, false);
  return free;
}

void WarpProducts::issue(const AsyncProduct& product, float* const (&d)[lanes], const u32* const (&a)[lanes],
                         Site site) {
  if (!is_fenced_)
    block.fail(Fault::illegal_instruction, site, "a product without wgmma.fence after its registers were free");
  if (product.columns < 8 || product.columns > most_columns || product.columns % 8 != 0)
    block.fail(Fault::illegal_instruction, site, "products of %d columns", product.columns);
  if (!Descriptor::is_of_the_model(product.b_tile) ||
      (!product.is_of_registers && !Descriptor::is_of_the_model(product.a_tile)))
    block.fail(Fault::illegal_instruction, site, "a matrix descriptor that is not swizzled by 128 bytes, from 0");
  // Each warp of the group issues the same.
  for (int warp = warp_ / 4 * 4; warp < warp_ / 4 * 4 + 4; ++warp) {
    const WarpProducts& other = block.products[warp];
    if (other.count() > count() && !other.issued(count()).is_same_as(product))
      block.fail(Fault::illegal_instruction, site, "warps %d and %d of one group have other products", warp_, warp);
  }
  each_operand_row(product,
                   [&](Part, int, int, unsigned char* at) { block.shared.check_product(warp_, at, 16, site); });
  Issued issued{product, accumulator_of(product, d, site), {}};
  if (product.is_of_registers)
    for (int lane = 0; lane < lanes; ++lane)
      for (int i = 0; i < 4; ++i)
        std::memcpy(&issued.a[lane / 4 + i % 2 * 8][lane % 4 * 2 + i / 2 * 8], &a[lane][i], 4);
  issued_.push_back(issued);
  if (block.options.arrival == Arrival::early) carry_out_one();
}

void WarpProducts::carry_out_one() {
  if (carried_out_ == issued_.size()) return;
  Issued& issued = issued_[carried_out_++];
  const AsyncProduct& product = issued.product;
  u16 b[most_columns / 8][16][8];
  each_operand_row(product, [&](Part part, int row, int piece, const unsigned char* at) {
    u16 eight[8];
    std::memcpy(eight, at, 16);
    if (part == Part::a) {
      std::memcpy(&issued.a[row][8 * piece], eight, 16);
    } else if (product.is_of_registers) {
      std::memcpy(b[piece][row], eight, 16);
    } else {
      for (int k = 0; k < 8; ++k) b[row / 8][8 * piece + k][row % 8] = eight[k];
    }
  });
  Accumulator& accumulator = accumulators_[issued.accumulator];
  for (int i = 0; i < product.columns / 8; ++i) {
    if (!product.adds) std::memset(accumulator.values[i], 0, sizeof accumulator.values[i]);
    multiply_add_tile(product.operand, block.product, issued.a, b[i], accumulator.values[i]);
  }
}

void WarpProducts::wait(int groups_left) {
  while (group_ends_.size() - finished_groups_ > static_cast<std::size_t>(groups_left)) {
    for (const std::size_t end = group_ends_[finished_groups_++]; finished_ < end; ++finished_) {
      while (carried_out_ <= finished_) carry_out_one();
      const Issued& issued = issued_[finished_];
      each_operand_row(issued.product,
                       [&](Part, int, int, unsigned char* at) { block.shared.finish_product(warp_, at, 16); });
      Accumulator& accumulator = accumulators_[issued.accumulator];
      if (--accumulator.uses == 0) copy_accumulators(accumulator.values, accumulator.d, accumulator.columns, true);
    }
  }
  block.clocks.finish(Agent::products(warp_), warp_);
  is_fenced_ = false;
}

struct ProductArgument {
  AsyncProduct product;
  float* d;
  const u32* a;
  Site site;
};

void issue_product(bool is_fp16, int columns, float* d, const u32* a, u64 a_tile, u64 b_tile, bool adds, Site site) {
  const AsyncProduct product{is_fp16 ? Operand::fp16 : Operand::bf16, columns, a != nullptr, adds, a_tile, b_tile};
  ProductArgument argument{product, d, a, site};
  block.collective(
      "wgmma.mma_async", &argument,
      [](void* const* arguments) {
        float* accumulators[lanes];
        const u32* registers[lanes];
        const ProductArgument& first = *static_cast<ProductArgument*>(arguments[0]);
        for (int lane = 0; lane < lanes; ++lane) {
          const ProductArgument& one = *static_cast<ProductArgument*>(arguments[lane]);
          if (!one.product.is_same_as(first.product))
            block.fail(Fault::illegal_instruction, one.site, "lanes of one warp have other products");
          accumulators[lane] = one.d;
          registers[lane] = one.a;
        }
        block.products[block.warp_of_thread()].issue(first.product, accumulators, registers, first.site);
      },
      site);
}

void wait_for_products(int groups_left, Site site) {
  block.collective(
      "wgmma.wait_group", &groups_left,
      [](void* const* arguments) { block.products[block.warp_of_thread()].wait(*static_cast<int*>(arguments[0])); },
      site);
}

}  // namespace SoftwareGPU

using SoftwareGPU::block, SoftwareGPU::Site;

void products_fence(Site site) {
  block.collective("wgmma.fence", nullptr, [](void* const*) { block.products[block.warp_of_thread()].fence(); }, site);
}

void products_commit(Site site) {
  block.collective(
      "wgmma.commit_group", nullptr, [](void* const*) { block.products[block.warp_of_thread()].commit(); }, site);
}
