// The block that runs: its threads, whose turn it is, and what its warps wait for.
#pragma once

#include <cstdint>
#include <memory>

#include "../include/SoftwareGPU/launch.hpp"
#include "../include/SoftwareGPU/site.hpp"
#include "clocks.hpp"
#include "copy_queue.hpp"
#include "fiber.hpp"
#include "groups.hpp"
#include "mbarriers.hpp"
#include "product.hpp"
#include "random.hpp"
#include "shared_memory.hpp"
#include "tensor_copies.hpp"
#include "warp_products.hpp"

namespace SoftwareGPU {

constexpr std::uint32_t all_lanes = 0xFFFFFFFFu;

struct Warp {
  /// Lanes by what they do; a lane is in one of these.
  std::uint32_t ready, at_collective, at_barrier, asleep, exited;
  /// What lanes that are not ready are at, by the first to come.
  const char* instruction;
  Site site;
  void* arguments[lanes];
  /// Collectives until other warps have a turn.
  int turn;
};

/// Does for all lanes what they have come for, each with an argument of its own.
using WarpWork = void (*)(void* const arguments[lanes]);

class Block {
 public:
  /// Runs one to its end, or to its first fault.
  void run(const Kernel& kernel, const unsigned char* parameters, Grid at, int threads);

  /// Waits for all lanes of this one's warp.
  void collective(const char* instruction, void* argument, WarpWork work, Site site);
  /// Waits for all threads of the block; whether any of them has said yes.
  bool barrier(const char* instruction, bool yes, Site site);
  /// Until someone wakes this lane, which looks again whether it may go on.
  void sleep(const char* instruction, Site site);
  void wake(int thread);
  void wake_all();
  /// Ends the launch.
  [[noreturn]] void fail(Fault fault, Site site, const char* format, ...) __attribute__((format(printf, 4, 5)));

  int thread() const { return thread_; }
  int warp_of_thread() const { return thread_ / lanes; }
  int warps() const { return threads_ / lanes; }
  Warp& warp() { return warps_[thread_ / lanes]; }

  Grid at;
  Options options;
  Random random;
  Clocks clocks;
  SharedMemory shared;
  ProductRules product;
  CopyQueue copies[most_threads];
  Mbarriers mbarriers;
  TensorCopies tensor_copies;
  WarpProducts products[most_warps];
  NamedBarriers named_barriers;
  Registers registers;
  Result result;

 private:
  static void enter();
  [[noreturn]] void exit_thread();
  void next_lane();
  void go_home() { fibers_[thread_].switch_to(home_); }
  void take_turns();
  void release_barrier();
  /// What may happen at any time does, sometimes.
  void pass_time();
  void check_same_instruction(const char* instruction, Site site);
  std::uint32_t warps_with_ready_lanes() const;
  void report_deadlock();
  void record(Fault fault, Site site, const char* what);

  const Kernel* kernel_ = nullptr;
  const unsigned char* parameters_ = nullptr;
  int threads_ = 0, thread_ = 0, exited_ = 0;
  /// At the barrier: how many, at which, what they say, what those before them said.
  int arrived_ = 0;
  const char* barrier_ = nullptr;
  bool one_says_yes_ = false, one_said_yes_ = false;
  void* home_ = nullptr;
  Warp warps_[most_warps];
  Fiber fibers_[most_threads];
};

/// The one that runs: launches take turns.
extern Block block;

}  // namespace SoftwareGPU
