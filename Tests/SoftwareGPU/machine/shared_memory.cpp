#include "shared_memory.hpp"

#include <algorithm>
#include <cstring>
#include <iterator>

#include "../include/SoftwareGPU/memory.hpp"
#include "block.hpp"

namespace SoftwareGPU {

namespace {
/// What tensor copies need of a tile that is swizzled by 128 bytes.
constexpr std::size_t alignment_of_start = 1024;
}  // namespace

SharedMemory::SharedMemory()
    : memory_(new unsigned char[most_bytes + alignment_of_start]), cells_(new Cell[most_bytes / cell_bytes]) {
  const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(memory_.get());
  bytes_ = memory_.get() + (alignment_of_start - address % alignment_of_start) % alignment_of_start;
}

void SharedMemory::start_block() {
  std::memset(bytes_, 0xFF, size_);
  std::fill(cells_.get(), cells_.get() + (size_ + cell_bytes - 1) / cell_bytes, Cell{});
  if (has_products_)
    std::fill(product_cells_.get(), product_cells_.get() + most_bytes / product_cell_bytes, ProductCell{});
  has_products_ = false;
  std::fill(std::begin(fences_), std::end(fences_), 0u);
}

std::size_t SharedMemory::offset_of(const void* at, int bytes, int alignment, const char* what, Site site) const {
  const std::size_t offset = static_cast<std::size_t>(static_cast<const unsigned char*>(at) - bytes_);
  if (offset > size_ || size_ - offset < static_cast<std::size_t>(bytes))
    block.fail(Fault::illegal_address, site, "%s of %d bytes at byte %td of %zu of shared memory", what, bytes,
               static_cast<std::ptrdiff_t>(offset), size_);
  if (offset % static_cast<std::size_t>(alignment) != 0)
    block.fail(Fault::misaligned_address, site, "%s of %d bytes at byte %zu of shared memory", what, bytes, offset);
  return offset;
}

void SharedMemory::fail_race(const char* what, const char* before, Agent other, std::size_t cell, Site site) const {
  if (other.is_several())
    block.fail(Fault::illegal_instruction, site, "race: %s byte %zu of shared memory, which several warps have %s",
               what, cell * cell_bytes, before);
  block.fail(Fault::illegal_instruction, site, "race: %s byte %zu of shared memory, which warp %d has %s", what,
             cell * cell_bytes, other.place() % most_warps, before);
}

void SharedMemory::check_written(const Cell& cell, const View& view, std::size_t index, Site site) const {
  const bool is_known = view.is_before(cell.write);
  if (cell.in_flight || (cell.write.agent.is_copies() && !is_known))
    block.fail(Fault::illegal_instruction, site, "touches byte %zu of shared memory, whose copy was not waited for",
               index * cell_bytes);
  if (!is_known) fail_race("touches", "written", cell.write.agent, index, site);
}

void SharedMemory::note_read(Cell& cell, const View& view, const Access& access) {
  const bool are_several = cell.read.agent.is_several();
  if (are_several ? view.are_before(cell.readers, cell.read.time) : view.is_before(cell.read)) {
    cell.read = access;
  } else if (!are_several && cell.read.agent.place() == access.agent.place()) {
    cell.read = {Agent::warp(access.agent.place()), access.time};
  } else {
    const std::uint32_t before = are_several ? cell.readers : 1u << cell.read.agent.place();
    cell.readers = before | 1u << access.agent.place();
    cell.read = {Agent::several(), std::max(cell.read.time, access.time)};
  }
}

void SharedMemory::check_load(Agent agent, const void* at, int bytes, Site site) {
  const std::size_t first = offset_of(at, bytes, bytes, "a load", site) / cell_bytes;
  const View view = block.clocks.view_of(agent);
  const Access access = block.clocks.now(agent);
  for (std::size_t i = first; i < first + static_cast<std::size_t>(bytes / cell_bytes); ++i) {
    check_written(cells_[i], view, i, site);
    note_read(cells_[i], view, access);
  }
}

void SharedMemory::check_is_written(Agent agent, const void* at, int bytes, Site site) {
  const std::size_t first = offset_of(at, bytes, bytes, "an access", site) / cell_bytes;
  const View view = block.clocks.view_of(agent);
  for (std::size_t i = first; i < first + static_cast<std::size_t>(bytes / cell_bytes); ++i)
    check_written(cells_[i], view, i, site);
}

void SharedMemory::check_write(const Cell& cell, const View& view, std::size_t index, const char* what,
                               Site site) const {
  check_written(cell, view, index, site);
  const bool are_several = cell.read.agent.is_several();
  if (are_several ? !view.are_before(cell.readers, cell.read.time) : !view.is_before(cell.read))
    fail_race(what, "read", cell.read.agent, index, site);
  if (has_products_) check_products(view, index, what, site);
}

void SharedMemory::check_store(Agent agent, const void* at, int bytes, Site site) {
  const std::size_t first = offset_of(at, bytes, bytes, "a store", site) / cell_bytes;
  const View view = block.clocks.view_of(agent);
  for (std::size_t i = first; i < first + static_cast<std::size_t>(bytes / cell_bytes); ++i) {
    check_write(cells_[i], view, i, "writes", site);
    cells_[i].write = block.clocks.now(agent);
    cells_[i].fences = fences_[agent.index()];
  }
}

void SharedMemory::depart(Agent agent, const void* at, int bytes, Site site) {
  const std::size_t first = offset_of(at, bytes, bytes, "a copy", site) / cell_bytes;
  const View view = block.clocks.view_of(agent);
  for (std::size_t i = first; i < first + static_cast<std::size_t>(bytes / cell_bytes); ++i) {
    check_write(cells_[i], view, i, "copies to", site);
    cells_[i].write = block.clocks.now(agent);
    cells_[i].in_flight = true;
  }
}

void SharedMemory::arrive(Agent agent, const void* at, int bytes) {
  const std::size_t first = first_cell(at);
  for (std::size_t i = first; i < first + static_cast<std::size_t>(bytes / cell_bytes); ++i) {
    cells_[i].write = block.clocks.now(agent);
    cells_[i].fences = fences_[agent.index()];
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
