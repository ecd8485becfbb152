#include <algorithm>
#include <cstdint>
#include <mutex>
#include <vector>

#include "../include/SoftwareGPU/memory.hpp"
#include "block.hpp"

namespace SoftwareGPU {

Memory memory;

namespace {

struct Range {
  std::uintptr_t start, end;
};

std::mutex mutex;
std::vector<Range> ranges;  // by start, apart from each other
bool is_checked = false;
Range latest{0, 0};

bool is_allowed(std::uintptr_t start, std::uintptr_t end) {
  if (start >= latest.start && end <= latest.end) return true;
  const std::lock_guard<std::mutex> lock(mutex);
  if (!is_checked) return true;
  const auto after = std::upper_bound(ranges.begin(), ranges.end(), start,
                                      [](std::uintptr_t value, const Range& range) { return value < range.start; });
  if (after == ranges.begin() || end > (after - 1)->end) return false;
  latest = *(after - 1);
  return true;
}

}  // namespace

void Memory::allow(const void* start, std::size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex);
  const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(start);
  const auto at = std::lower_bound(ranges.begin(), ranges.end(), address,
                                   [](const Range& range, std::uintptr_t value) { return range.start < value; });
  ranges.insert(at, {address, address + bytes});
  is_checked = true;
}

void Memory::forbid(const void* start) {
  const std::lock_guard<std::mutex> lock(mutex);
  const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(start);
  ranges.erase(std::remove_if(ranges.begin(), ranges.end(), [=](const Range& range) { return range.start == address; }),
               ranges.end());
  latest = {0, 0};
}

void Memory::stop_checking() {
  const std::lock_guard<std::mutex> lock(mutex);
  ranges.clear();
  is_checked = false;
  latest = {0, 0};
}

void check_global(const void* at, int bytes, int alignment, Site site) {
  const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(at);
  if (address % static_cast<std::uintptr_t>(alignment) != 0)
    block.fail(Fault::misaligned_address, site, "%d bytes of global memory at %p", bytes, at);
  if (!is_allowed(address, address + static_cast<std::uintptr_t>(bytes)))
    block.fail(Fault::illegal_address, site, "%d bytes of global memory at %p, which is nobody's", bytes, at);
}

}  // namespace SoftwareGPU
