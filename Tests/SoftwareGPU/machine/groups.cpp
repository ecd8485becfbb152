#include "groups.hpp"

#include <algorithm>

#include "../include/SoftwareGPU/hopper.hpp"
#include "block.hpp"

namespace SoftwareGPU {

void NamedBarriers::start_block() { std::fill(all_, all_ + 16, One{}); }

void NamedBarriers::arrive(int id, int threads, const char* instruction, bool yes, Site site) {
  // 0 is the block's own.
  if (id < 1 || id > 15) block.fail(Fault::illegal_instruction, site, "barrier %d of 1 to 15", id);
  if (threads < lanes || threads % lanes != 0 || threads > block.warps() * lanes)
    block.fail(Fault::illegal_instruction, site, "a barrier of %d threads", threads);
  One& one = all_[id];
  if (one.warps != 0 && one.threads != threads)
    block.fail(Fault::illegal_instruction, site, "barrier %d of %d threads and of %d", id, one.threads, threads);
  if (one.warps != 0 && one.instruction != instruction)
    block.fail(Fault::illegal_instruction, site, "%s where other warps are at %s", instruction, one.instruction);
  one.threads = threads;
  one.instruction = instruction;
  one.one_says_yes |= yes;
  one.warps |= 1u << block.warp_of_thread();
  if (__builtin_popcount(one.warps) * lanes < threads) return;
  block.clocks.meet(one.warps);
  one.warps = 0;
  one.one_said_yes = one.one_says_yes;
  one.one_says_yes = false;
  ++one.times_opened;
  block.wake_all();
}

void Registers::start_block(int threads) {
  const int each = std::min(255, 65536 / threads) / 8 * 8;
  free_ = times_given_ = 0;
  std::fill(of_warp_, of_warp_ + most_warps, each);
}

bool Registers::set(int warp, int count, bool is_increase, Site site) {
  if (count < 24 || count > 256 || count % 8 != 0)
    block.fail(Fault::illegal_instruction, site, "setmaxnreg of %d registers", count);
  int& mine = of_warp_[warp];
  if (is_increase ? count < mine : count > mine)
    block.fail(Fault::illegal_instruction, site, "setmaxnreg.%s from %d to %d registers", is_increase ? "inc" : "dec",
               mine, count);
  const int more = (count - mine) * lanes;
  if (more > free_) return false;
  free_ -= more;
  mine = count;
  if (more < 0) ++times_given_, block.wake_all();
  return true;
}

void set_registers(int count, bool is_increase, Site site) {
  struct Argument {
    int count;
    bool is_increase, is_done;
    Site site;
  } argument{count, is_increase, false, site};
  // By the last lane to come, for all; where registers are short they come again when some
  // have been given.
  while (!argument.is_done) {
    const int before = block.registers.times_given();
    block.collective(
        "setmaxnreg", &argument,
        [](void* const* arguments) {
          const Argument& first = *static_cast<Argument*>(arguments[0]);
          const bool is_done = block.registers.set(block.warp_of_thread(), first.count, first.is_increase, first.site);
          for (int lane = 0; lane < lanes; ++lane) static_cast<Argument*>(arguments[lane])->is_done = is_done;
        },
        site);
    while (!argument.is_done && block.registers.times_given() == before) block.sleep("setmaxnreg", site);
  }
}

}  // namespace SoftwareGPU

static bool meet_at(const char* instruction, int id, int threads, bool yes, SoftwareGPU::Site site) {
  using namespace SoftwareGPU;
  struct Argument {
    const char* instruction;
    int id, threads;
    bool yes;
    Site site;
  } argument{instruction, id, threads, yes, site};
  const std::uint32_t before = block.named_barriers.times_opened(id);
  block.collective(
      instruction, &argument,
      [](void* const* arguments) {
        const Argument& first = *static_cast<Argument*>(arguments[0]);
        bool one_says_yes = false;
        for (int lane = 0; lane < lanes; ++lane) one_says_yes |= static_cast<Argument*>(arguments[lane])->yes;
        block.named_barriers.arrive(first.id, first.threads, first.instruction, one_says_yes, first.site);
      },
      site);
  while (block.named_barriers.times_opened(id) == before) block.sleep(instruction, site);
  return block.named_barriers.one_said_yes(id);
}

void named_barrier(int id, int threads, SoftwareGPU::Site site) {
  meet_at("barrier.sync of some threads", id, threads, false, site);
}

bool named_barrier_or(int id, int threads, bool yes, SoftwareGPU::Site site) {
  return meet_at("barrier.red.or of some threads", id, threads, yes, site);
}
