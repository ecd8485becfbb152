#include "mbarriers.hpp"

#include "../include/SoftwareGPU/hopper.hpp"
#include "block.hpp"

namespace SoftwareGPU {

namespace {
/// PTX ISA, "Size and alignment of mbarrier object", "Contents of the mbarrier object".
constexpr int object_bytes = 8, most_arrivals = (1 << 20) - 1, most_expected_bytes = (1 << 20) - 1;
}  // namespace

void Mbarriers::init(void* at, int arrivals, Site site) {
  const Agent agent = Agent::thread(block.thread());
  block.shared.check_store(agent, at, object_bytes, site);
  if (arrivals < 1 || arrivals > most_arrivals)
    block.fail(Fault::illegal_instruction, site, "mbarrier of %d arrivals", arrivals);
  if (count_ == most_mbarriers) block.fail(Fault::illegal_instruction, site, "more mbarriers than the model has");
  Mbarrier& one = all_[count_++];
  one = Mbarrier{};
  one.at = at;
  one.maker = agent.index();
  one.arrivals = one.pending = arrivals;
}

void Mbarriers::fence(int thread) {
  for (int i = 0; i < count_; ++i) all_[i].is_fenced |= all_[i].maker == thread;
}

Mbarriers::Mbarrier& Mbarriers::find(const void* at, Site site) {
  block.shared.check_is_written(Agent::thread(block.thread()), at, object_bytes, site);
  for (int i = 0; i < count_; ++i)
    if (all_[i].at == at) return all_[i];
  block.fail(Fault::illegal_instruction, site, "there is no mbarrier");
}

int Mbarriers::index_for_copy(const void* at, Site site) {
  const Mbarrier& one = find(at, site);
  if (!one.is_fenced)
    block.fail(Fault::illegal_instruction, site,
               "a copy for an mbarrier without fence.mbarrier_init after it was made");
  return static_cast<int>(&one - all_);
}

void Mbarriers::arrive(const void* at, int bytes, Site site) {
  Mbarrier& one = find(at, site);
  one.bytes += bytes;
  if (bytes < 0 || one.bytes > most_expected_bytes)
    block.fail(Fault::illegal_instruction, site, "mbarrier expects %d bytes", one.bytes);
  if (one.pending == 0) block.fail(Fault::illegal_instruction, site, "more arrivals than the mbarrier has");
  --one.pending;
  block.clocks.release(block.thread(), one.arriving);
  // Lanes that all arrive leave nothing of their warp out.
  const int warp = block.warp_of_thread();
  one.arrived_lanes[warp] |= 1u << (block.thread() % lanes);
  if (one.arrived_lanes[warp] == all_lanes) block.clocks.release_warp(warp, one.arriving);
  complete_if_done(static_cast<int>(&one - all_));
}

void Mbarriers::complete(int index, int bytes) {
  all_[index].bytes -= bytes;
  complete_if_done(index);
}

void Mbarriers::complete_if_done(int index) {
  Mbarrier& one = all_[index];
  if (one.pending != 0 || one.bytes != 0) return;
  ++one.phase;
  one.pending = one.arrivals;
  one.complete.join(one.arriving);
  one.complete.until[Agent::copies(index).place()] = one.phase;
  one.arriving = Clock{};
  for (std::uint32_t& arrived : one.arrived_lanes) arrived = 0;
  for (int thread = 0; thread < block.warps() * lanes; ++thread) {
    if (one.is_waited_for[thread]) block.wake(thread);
    one.is_waited_for[thread] = false;
  }
}

void Mbarriers::wait(const void* at, int parity, Site site) {
  Mbarrier& one = find(at, site);
  const int thread = block.thread();
  while (static_cast<int>(one.phase & 1) == parity) {
    one.is_waited_for[thread] = true;
    block.sleep("mbarrier.try_wait", site);
  }
  block.clocks.acquire(thread, one.complete);
}

}  // namespace SoftwareGPU

using SoftwareGPU::block, SoftwareGPU::Site;

u32 shared_address(const void* at) {
  return static_cast<u32>(static_cast<const unsigned char*>(at) - SoftwareGPU::block.shared.start());
}

void mbarrier_init(u64* mbarrier, int arrivals, Site site) { block.mbarriers.init(mbarrier, arrivals, site); }
void mbarrier_init_fence() { block.mbarriers.fence(block.thread()); }
void mbarrier_arrive(u64* mbarrier, Site site) { block.mbarriers.arrive(mbarrier, 0, site); }
void mbarrier_arrive_expect(u64* mbarrier, int bytes, Site site) { block.mbarriers.arrive(mbarrier, bytes, site); }
void mbarrier_wait(u64* mbarrier, int parity, Site site) { block.mbarriers.wait(mbarrier, parity, site); }
