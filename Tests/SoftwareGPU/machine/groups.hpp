// What warps of a block do with some of the others: named barriers, registers lent.
#pragma once

#include <cstdint>

#include "../include/SoftwareGPU/site.hpp"
#include "clocks.hpp"

namespace SoftwareGPU {

class NamedBarriers {
 public:
  void start_block();
  /// All lanes of a warp come; whether those are all of `threads`.
  void arrive(int id, int threads, Site site);
  std::uint32_t times_opened(int id) const { return all_[id & 15].times_opened; }

 private:
  struct One {
    int threads = 0;
    std::uint32_t warps = 0, times_opened = 0;
  };
  One all_[16];
};

/// What setmaxnreg gives and takes.
class Registers {
 public:
  void start_block(int threads);
  /// Of the warp's threads. False where too few are free as yet.
  bool set(int warp, int count, bool is_increase, Site site);

 private:
  int free_ = 0;
  int of_warp_[most_warps];
};

}  // namespace SoftwareGPU
