// SPDX-License-Identifier: Apache-2.0
#include "memory.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <iterator>

#include "failure.hpp"

namespace gpu {
namespace {

constexpr std::size_t alignment = 256;
constexpr int poison = 0xFF;
/// Of a larger allocation: what is written becomes memory of the host's.
constexpr std::size_t poisoned_bytes_at_most = std::size_t{1} << 28;

std::size_t rounded_up(std::size_t bytes, std::size_t unit) { return (bytes + unit - 1) / unit * unit; }

}  // namespace

CUdeviceptr Memory::allocate(std::size_t bytes, const Context* owner) {
  require(bytes > 0, CUDA_ERROR_INVALID_VALUE);
  require(bytes <= capacity_ - taken_, CUDA_ERROR_OUT_OF_MEMORY);
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const std::size_t aligned = rounded_up(bytes, alignment), held = rounded_up(aligned, page);
  void* const mapped = mmap(nullptr, held + 2 * page, PROT_NONE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  require(mapped != MAP_FAILED, CUDA_ERROR_OUT_OF_MEMORY);
  Allocation made{};
  made.pages = static_cast<std::uint8_t*>(mapped) + page;
  made.page_bytes = held;
  made.address = reinterpret_cast<CUdeviceptr>(made.pages + held - aligned);
  made.bytes = bytes;
  made.owner = owner;
  mprotect(made.pages, held, PROT_READ | PROT_WRITE);
  std::memset(made.pages, poison, std::min(held, poisoned_bytes_at_most));
  mprotect(made.pages, held, PROT_NONE);
  allocations_[made.address] = made;
  taken_ += bytes;
  return made.address;
}

void Memory::release(const Allocation& allocation) {
  taken_ -= allocation.bytes;
  // The addresses stay taken.
  madvise(allocation.pages, allocation.page_bytes, MADV_DONTNEED);
}

void Memory::free(CUdeviceptr address) {
  const auto found = allocations_.find(address);
  require(found != allocations_.end(), CUDA_ERROR_INVALID_VALUE);
  release(found->second);
  allocations_.erase(found);
}

void Memory::free_all_of(const Context* owner) {
  for (auto each = allocations_.begin(); each != allocations_.end();) {
    if (each->second.owner == owner) {
      release(each->second);
      each = allocations_.erase(each);
    } else {
      ++each;
    }
  }
}

const Allocation* Memory::find(CUdeviceptr address) const {
  auto after = allocations_.upper_bound(address);
  if (after == allocations_.begin()) return nullptr;
  const Allocation& before = std::prev(after)->second;
  return address - before.address < before.bytes ? &before : nullptr;
}

bool Memory::holds(CUdeviceptr address, std::size_t bytes) const {
  const Allocation* found = find(address);
  return bytes == 0 || (found != nullptr && bytes <= found->bytes - (address - found->address));
}

void Memory::protect(bool is_open) const {
  for (const auto& [address, each] : allocations_) {
    mprotect(each.pages, each.page_bytes, is_open ? PROT_READ | PROT_WRITE : PROT_NONE);
  }
}

}  // namespace gpu
