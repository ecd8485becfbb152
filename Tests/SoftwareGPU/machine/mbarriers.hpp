// Barriers in shared memory: phases that arrivals and bytes complete.
#pragma once

#include <cstdint>

#include "../include/SoftwareGPU/site.hpp"
#include "clocks.hpp"

namespace SoftwareGPU {

class Mbarriers {
 public:
  void start_block() { count_ = 0; }
  void init(void* at, int arrivals, Site site);
  /// Those that this thread has made may be handed to copies.
  void fence(int thread);
  /// `bytes` more are to come.
  void arrive(const void* at, int bytes, Site site);
  void wait(const void* at, int parity, Site site);

  /// Of one that copies may complete.
  int index_for_copy(const void* at, Site site);
  /// What is copied for its present phase is written by this.
  Access access_of_copy(int index) const { return {Agent::copies(index), all_[index].phase + 1}; }
  void complete(int index, int bytes);

 private:
  struct Mbarrier {
    const void* at;
    int maker, arrivals, pending, bytes;
    bool is_fenced;
    /// Phases that are complete.
    std::uint32_t phase;
    /// What those who have arrived in this phase, and in all before it, have done.
    Clock arriving, complete;
    /// In this phase, by warp.
    std::uint32_t arrived_lanes[most_warps];
    bool is_waited_for[most_threads];
  };

  Mbarrier& find(const void* at, Site site);
  void complete_if_done(int index);

  int count_ = 0;
  Mbarrier all_[most_mbarriers];
};

}  // namespace SoftwareGPU
