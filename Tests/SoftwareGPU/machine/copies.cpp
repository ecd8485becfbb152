#include "../include/SoftwareGPU/copies.hpp"

#include <cstring>

#include "../include/SoftwareGPU/memory.hpp"
#include "block.hpp"

namespace SoftwareGPU {

void CopyQueue::clear() {
  copies_.clear();
  group_ends_.clear();
  first_ = first_group_ = 0;
}

void CopyQueue::land(Copy& copy) {
  if (copy.has_landed) return;
  copy.has_landed = true;
  std::memset(copy.to, 0, 16);
  if (copy.bytes > 0) std::memcpy(copy.to, copy.from, static_cast<std::size_t>(copy.bytes));
}

void CopyQueue::land_one(Random& random) {
  if (first_ == copies_.size()) return;
  land(copies_[first_ + random.below(static_cast<std::uint32_t>(copies_.size() - first_))]);
}

void CopyQueue::wait(int groups_left) {
  while (group_ends_.size() - first_group_ > static_cast<std::size_t>(groups_left)) {
    for (const std::size_t end = group_ends_[first_group_++]; first_ < end; ++first_) {
      land(copies_[first_]);
      block.shared.arrive(Agent::thread(block.thread()), copies_[first_].to, 16);
    }
  }
  if (first_ == copies_.size() && first_group_ == group_ends_.size()) clear();
}

void wait_for_copies(int groups_left) { block.copies[block.thread()].wait(groups_left); }

}  // namespace SoftwareGPU

void copy_async_16(void* shared, const void* global, int bytes, SoftwareGPU::Site site) {
  using namespace SoftwareGPU;
  if (bytes < 0 || bytes > 16)
    block.fail(Fault::illegal_instruction, site, "cp.async of 16 bytes reads %d of them", bytes);
  if (bytes > 0) check_global(global, bytes, 16, site);
  block.shared.depart(Agent::thread(block.thread()), shared, 16, site);
  CopyQueue::Copy copy{static_cast<unsigned char*>(shared), static_cast<const unsigned char*>(global), bytes, false};
  const Arrival arrival = block.options.arrival;
  if (arrival == Arrival::early || (arrival == Arrival::random && block.random.one_in(3))) CopyQueue::land(copy);
  block.copies[block.thread()].add(copy);
}

void copies_commit() { SoftwareGPU::block.copies[SoftwareGPU::block.thread()].commit(); }
