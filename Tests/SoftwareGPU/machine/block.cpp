#include "block.hpp"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>

#include "../include/SoftwareGPU/threads.hpp"

namespace SoftwareGPU {

Block block;

void Block::run(const Kernel& kernel, const unsigned char* parameters, Grid position, int threads) {
  kernel_ = &kernel;
  parameters_ = parameters;
  at = position;
  threads_ = threads;
  arrived_ = exited_ = 0;
  one_says_yes_ = false;
  for (int i = 0; i < threads / lanes; ++i) {
    warps_[i] = Warp{};
    warps_[i].ready = all_lanes;
    products[i].start_block(i);
  }
  for (int i = 0; i < threads; ++i) {
    fibers_[i].start(enter);
    copies[i].clear();
  }
  clocks.start_block(threads);
  shared.start_block();
  mbarriers.start_block();
  tensor_copies.start_block();
  named_barriers.start_block();
  registers.start_block(threads);
  Random machine(options.machine);
  product = ProductRules(options.machine ? machine : random);
  take_turns();
}

void Block::enter() {
  block.kernel_->body(block.parameters_);
  block.exit_thread();
}

void Block::exit_thread() {
  warp().ready &= ~(1u << (thread_ % lanes));
  warp().exited |= 1u << (thread_ % lanes);
  ++exited_;
  if (arrived_ > 0 && arrived_ + exited_ == threads_) release_barrier();
  next_lane();
  std::abort();
}

std::uint32_t Block::warps_with_ready_lanes() const {
  std::uint32_t some = 0;
  for (int i = 0; i < threads_ / lanes; ++i) some |= static_cast<std::uint32_t>(warps_[i].ready != 0) << i;
  return some;
}

// Starting at a random one, the first bit of a set that has any.
static int pick(std::uint32_t set, std::uint32_t start) {
  const std::uint32_t from_start = start == 0 ? set : set >> start << start;
  return __builtin_ctz(from_start != 0 ? from_start : set);
}

void Block::take_turns() {
  while (result.ok()) {
    const std::uint32_t some = warps_with_ready_lanes();
    if (some == 0) {
      if (exited_ != threads_ && tensor_copies.are_under_way()) {
        tensor_copies.land_one(random);
        continue;
      }
      if (exited_ != threads_) report_deadlock();
      return;
    }
    pass_time();
    const int index = pick(some, random.below(static_cast<std::uint32_t>(threads_ / lanes)));
    warps_[index].turn = static_cast<int>(random.below(64));
    thread_ = index * lanes + pick(warps_[index].ready, random.below(lanes));
    fibers_[thread_].switch_from(home_);
  }
}

// Leaves this lane for another of its warp that is ready, if there is one.
void Block::next_lane() {
  const int before = thread_;
  if (warp().ready == 0) {
    go_home();
  } else {
    thread_ = before / lanes * lanes + pick(warp().ready, static_cast<std::uint32_t>(before % lanes));
    if (thread_ != before) fibers_[before].switch_to(fibers_[thread_]);
  }
}

void Block::check_same_instruction(const char* instruction, Site site) {
  Warp& w = warp();
  if (w.exited != 0) fail(Fault::illegal_instruction, site, "%s in a warp of which lanes have exited", instruction);
  if ((w.at_collective | w.at_barrier) == 0) {
    w.instruction = instruction;
    w.site = site;
  } else if (w.instruction != instruction || w.site.line != site.line || w.site.file != site.file) {
    fail(Fault::illegal_instruction, site, "warp has diverged: some of its lanes are at %s, others at %s (line %d)",
         instruction, w.instruction, w.site.line);
  }
}

void Block::collective(const char* instruction, void* argument, WarpWork work, Site site) {
  check_same_instruction(instruction, site);
  Warp& w = warp();
  const std::uint32_t lane = 1u << (thread_ % lanes);
  w.arguments[thread_ % lanes] = argument;
  if ((w.at_collective | lane) != all_lanes) {
    w.ready &= ~lane;
    w.at_collective |= lane;
    next_lane();
    return;
  }
  // All are ready first: what they do may wake others, or end the launch.
  w.at_collective = 0;
  w.ready = all_lanes;
  work(w.arguments);
  pass_time();
  if (--w.turn < 0) go_home();
}

void Block::pass_time() {
  if (options.arrival != Arrival::random) return;
  copies[random.below(static_cast<std::uint32_t>(threads_))].land_one(random);
  if (tensor_copies.are_under_way() && random.one_in(16)) tensor_copies.land_one(random);
  WarpProducts& some = products[random.below(static_cast<std::uint32_t>(warps()))];
  if (some.are_under_way()) some.carry_out_one();
}

void Block::sleep(const char* instruction, Site site) {
  Warp& w = warp();
  if ((w.at_collective | w.at_barrier) == 0) {
    w.instruction = instruction;
    w.site = site;
  }
  w.ready &= ~(1u << (thread_ % lanes));
  w.asleep |= 1u << (thread_ % lanes);
  next_lane();
}

void Block::wake(int thread) {
  const std::uint32_t lane = 1u << (thread % lanes);
  warps_[thread / lanes].ready |= warps_[thread / lanes].asleep & lane;
  warps_[thread / lanes].asleep &= ~lane;
}

void Block::wake_all() {
  for (int thread = 0; thread < threads_; ++thread) wake(thread);
}

bool Block::barrier(const char* instruction, bool yes, Site site) {
  check_same_instruction(instruction, site);
  if (arrived_ > 0 && barrier_ != instruction)
    fail(Fault::illegal_instruction, site, "%s where other warps are at %s", instruction, barrier_);
  barrier_ = instruction;
  one_says_yes_ |= yes;
  const std::uint32_t lane = 1u << (thread_ % lanes);
  warp().ready &= ~lane;
  warp().at_barrier |= lane;
  if (++arrived_ + exited_ == threads_) release_barrier();
  next_lane();
  return one_said_yes_;
}

void Block::release_barrier() {
  arrived_ = 0;
  one_said_yes_ = one_says_yes_;
  one_says_yes_ = false;
  clocks.meet(all_lanes);
  for (int i = 0; i < threads_ / lanes; ++i) {
    warps_[i].ready |= warps_[i].at_barrier;
    warps_[i].at_barrier = 0;
  }
}

void Block::report_deadlock() {
  std::string what;
  Site first{};
  for (int i = 0; i < threads_ / lanes; ++i) {
    const Warp& w = warps_[i];
    const std::uint32_t waiting = w.at_collective | w.at_barrier | w.asleep;
    if (waiting == 0) continue;
    if (what.empty()) {
      thread_ = i * lanes + __builtin_ctz(waiting);
      first = w.site;
      what = std::string("deadlock: waits at ") + w.instruction + " for threads that do not come";
    } else {
      what +=
          std::string("; warp ") + std::to_string(i) + " at " + w.instruction + ", line " + std::to_string(w.site.line);
    }
  }
  record(Fault::illegal_instruction, first, what.c_str());
}

void Block::record(Fault fault, Site site, const char* what) {
  char where[512];
  std::snprintf(where, sizeof where, "%s:%d: %s, block (%d, %d, %d), thread %d: ", site.file, site.line,
                kernel_->name.c_str(), at.x, at.y, at.z, thread_);
  result.fault = fault;
  result.text = std::string(where) + what;
}

void Block::fail(Fault fault, Site site, const char* format, ...) {
  char what[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(what, sizeof what, format, arguments);
  va_end(arguments);
  record(fault, site, what);
  // The threads are left where they are: their stacks hold nothing to be destroyed.
  go_home();
  std::abort();
}

}  // namespace SoftwareGPU

using SoftwareGPU::block;

int thread_id() { return block.thread(); }
int lane_id() { return block.thread() % SoftwareGPU::lanes; }
int block_x() { return block.at.x; }
int block_y() { return block.at.y; }
int block_z() { return block.at.z; }

void block_barrier(SoftwareGPU::Site site) { block.barrier("barrier.sync", false, site); }
bool block_barrier_or(bool yes, SoftwareGPU::Site site) { return block.barrier("barrier.red.or", yes, site); }

void warp_barrier(SoftwareGPU::Site site) {
  block.collective(
      "bar.warp.sync", nullptr, [](void* const*) { block.clocks.meet(1u << block.warp_of_thread()); }, site);
}
