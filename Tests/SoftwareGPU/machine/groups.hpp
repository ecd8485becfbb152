// What warps of a block do with some of the others: named barriers, registers lent.
#pragma once

#include <cstdint>

#include "../include/SoftwareGPU/site.hpp"
#include "clocks.hpp"

namespace SoftwareGPU {

class NamedBarriers {
 public:
  void start_block();
  /// All lanes of a warp come, of which one may say yes.
  void arrive(int id, int threads, const char* instruction, bool yes, Site site);
  std::uint32_t times_opened(int id) const { return all_[id & 15].times_opened; }
  /// Before it opened last.
  bool one_said_yes(int id) const { return all_[id & 15].one_said_yes; }

 private:
  struct One {
    int threads = 0;
    const char* instruction = nullptr;
    std::uint32_t warps = 0, times_opened = 0;
    bool one_says_yes = false, one_said_yes = false;
  };
  One all_[16];
};

/// What setmaxnreg gives and takes.
class Registers {
 public:
  void start_block(int threads);
  /// Of the warp's threads. False where too few are free as yet.
  bool set(int warp, int count, bool is_increase, Site site);
  int times_given() const { return times_given_; }

 private:
  int free_ = 0, times_given_ = 0;
  int of_warp_[most_warps];
};

}  // namespace SoftwareGPU
