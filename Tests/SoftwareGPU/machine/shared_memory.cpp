#include "shared_memory.hpp"

#include <algorithm>
#include <cstring>

#include "../include/SoftwareGPU/memory.hpp"
#include "block.hpp"

namespace SoftwareGPU {

namespace {
/// What TMA needs of a tile that is swizzled by 128 bytes.
constexpr std::size_t alignment = 1024;
}  // namespace

SharedMemory::SharedMemory()
    : memory_(new unsigned char[most_bytes + alignment]), cells_(new Cell[most_bytes / cell_bytes]) {
  const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(memory_.get());
  bytes_ = memory_.get() + (alignment - address % alignment) % alignment;
}

void SharedMemory::start_block() {
  std::memset(bytes_, 0xFF, size_);
  std::fill(cells_.get(), cells_.get() + (size_ + cell_bytes - 1) / cell_bytes, Cell{});
  phase_ = 0;
}

std::size_t SharedMemory::range(const void* at, int bytes, const char* what, Site site) const {
  const std::size_t offset = static_cast<std::size_t>(static_cast<const unsigned char*>(at) - bytes_);
  if (offset > size_ || size_ - offset < static_cast<std::size_t>(bytes))
    block.fail(Fault::illegal_address, site, "%s of %d bytes at byte %td of %zu of shared memory", what, bytes,
               static_cast<std::ptrdiff_t>(offset), size_);
  if (offset % static_cast<std::size_t>(bytes) != 0)
    block.fail(Fault::misaligned_address, site, "%s of %d bytes at byte %zu of shared memory", what, bytes, offset);
  return offset;
}

SharedMemory::Access SharedMemory::now(Agent agent) const { return {agent, phase_, block.warp().barriers}; }

bool SharedMemory::ordered(const Access& before, const Access& after) {
  if (before.agent.is_nobody() || before.phase != after.phase) return true;
  if (before.agent == after.agent && before.agent.is_thread()) return true;
  return before.agent.warp_index() == after.agent.warp_index() && before.warp_phase != after.warp_phase;
}

void SharedMemory::fail_race(const char* what, const char* before, const Access& other, std::size_t cell,
                             Site site) const {
  const bool one = other.agent.is_thread() || other.agent.warp_index() < most_warps;
  block.fail(Fault::illegal_instruction, site, "race: %s byte %zu of shared memory, which %s %d %s, without a barrier",
             what, cell * cell_bytes, one ? "warp" : "several warps, not", one ? other.agent.warp_index() : -1, before);
}

void SharedMemory::check_load(Agent agent, const void* at, int bytes, Site site) {
  const std::size_t offset = range(at, bytes, "a load", site);
  const Access access = now(agent);
  for (std::size_t i = offset / cell_bytes; i < (offset + static_cast<std::size_t>(bytes)) / cell_bytes; ++i) {
    Cell& cell = cells_[i];
    if (cell.in_flight)
      block.fail(Fault::illegal_instruction, site, "reads byte %zu of shared memory, whose copy was not waited for",
                 i * cell_bytes);
    if (!ordered(cell.write, access)) fail_race("reads", "has written", cell.write, i, site);
    if (ordered(cell.read, access)) {
      cell.read = access;
    } else {
      const bool one_warp = cell.read.agent.warp_index() == agent.warp_index();
      cell.read.agent = one_warp ? Agent::warp(agent.warp_index()) : Agent::several();
    }
  }
}

void SharedMemory::check_write(Access access, std::size_t i, const char* what, Site site) const {
  const Cell& cell = cells_[i];
  if (cell.in_flight)
    block.fail(Fault::illegal_instruction, site, "%s byte %zu of shared memory, whose copy was not waited for", what,
               i * cell_bytes);
  if (!ordered(cell.write, access)) fail_race(what, "has written", cell.write, i, site);
  if (!ordered(cell.read, access)) fail_race(what, "has read", cell.read, i, site);
}

void SharedMemory::check_store(Agent agent, const void* at, int bytes, Site site) {
  const std::size_t offset = range(at, bytes, "a store", site);
  const Access access = now(agent);
  for (std::size_t i = offset / cell_bytes; i < (offset + static_cast<std::size_t>(bytes)) / cell_bytes; ++i) {
    check_write(access, i, "writes", site);
    cells_[i].write = access;
  }
}

void SharedMemory::depart(Agent agent, const void* at, int bytes, Site site) {
  const std::size_t offset = range(at, bytes, "a copy", site);
  const Access access = now(agent);
  for (std::size_t i = offset / cell_bytes; i < (offset + static_cast<std::size_t>(bytes)) / cell_bytes; ++i) {
    check_write(access, i, "copies to", site);
    cells_[i].write = access;
    cells_[i].in_flight = true;
  }
}

void SharedMemory::arrive(Agent agent, const void* at, int bytes) {
  const std::size_t offset = static_cast<std::size_t>(static_cast<const unsigned char*>(at) - bytes_);
  const Access access = now(agent);
  for (std::size_t i = offset / cell_bytes; i < (offset + static_cast<std::size_t>(bytes)) / cell_bytes; ++i) {
    cells_[i].write = access;
    cells_[i].in_flight = false;
  }
}

unsigned char* shared_memory() { return block.shared.start(); }

void check_shared_load(const void* at, int bytes, Site site) {
  block.shared.check_load(Agent::thread(block.thread()), at, bytes, site);
}

void check_shared_store(const void* at, int bytes, Site site) {
  block.shared.check_store(Agent::thread(block.thread()), at, bytes, site);
}

}  // namespace SoftwareGPU
