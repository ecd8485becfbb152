// A warp's share of its warpgroup's asynchronous products: 16 of 64 rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "../include/SoftwareGPU/site.hpp"
#include "clocks.hpp"
#include "product.hpp"

namespace SoftwareGPU {

struct AsyncProduct {
  Operand operand;
  int columns;
  bool is_of_registers, adds;
  u64 a_tile, b_tile;

  bool is_same_as(const AsyncProduct& other) const;
};

class WarpProducts {
 public:
  static constexpr int most_columns = 256, most_accumulators = 4;

  void start_block(int warp);
  void fence() { is_fenced_ = true; }
  /// d and a of each lane.
  void issue(const AsyncProduct& product, float* const (&d)[lanes], const u32* const (&a)[lanes], Site site);
  void commit() { group_ends_.push_back(issued_.size()); }
  void wait(int groups_left);
  /// The next one that has not been carried out, if there is one.
  void carry_out_one();
  bool are_under_way() const { return finished_ != issued_.size(); }

  const AsyncProduct& issued(std::size_t index) const { return issued_[index].product; }
  std::size_t count() const { return issued_.size(); }

 private:
  /// Registers that products are summed in. Until these are waited for the model has them,
  /// and who looks at his own finds NaN.
  struct Accumulator {
    float* d[lanes];
    int columns = 0, uses = 0;
    float values[most_columns / 8][16][8];
  };
  struct Issued {
    AsyncProduct product;
    int accumulator;
    u16 a[16][16];
  };

  int accumulator_of(const AsyncProduct& product, float* const (&d)[lanes], Site site);
  void give_back(Accumulator& accumulator);
  template <class Visit>
  void each_operand_row(const AsyncProduct& product, Visit visit) const;

  int warp_ = 0;
  bool is_fenced_ = false;
  std::vector<Issued> issued_;
  std::vector<std::size_t> group_ends_;
  std::size_t carried_out_ = 0, finished_ = 0, finished_groups_ = 0;
  Accumulator accumulators_[most_accumulators];
};

}  // namespace SoftwareGPU
