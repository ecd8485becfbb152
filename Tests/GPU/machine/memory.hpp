// A device's memory: addresses that only its own work can read or write.
//
// An allocation ends where a page does (up to the 256 bytes to which the driver aligns), has
// a page that nobody reaches on either side, and begins as 0xFF, a NaN in all formats. What
// was freed stays unreachable for good.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>

#include "../driver.h"

namespace gpu {

class Context;

struct Allocation {
  CUdeviceptr address;
  std::size_t bytes;
  const Context* owner;
  /// The pages that hold it.
  std::uint8_t* pages;
  std::size_t page_bytes;
};

class Memory {
 public:
  explicit Memory(std::size_t capacity) : capacity_(capacity) {}

  CUdeviceptr allocate(std::size_t bytes, const Context* owner);
  void free(CUdeviceptr address);
  void free_all_of(const Context* owner);

  /// What holds this address; nullptr: nothing.
  const Allocation* find(CUdeviceptr address) const;
  bool holds(CUdeviceptr address, std::size_t bytes) const;
  const std::map<CUdeviceptr, Allocation>& allocations() const { return allocations_; }

  std::size_t capacity() const { return capacity_; }
  std::size_t taken() const { return taken_; }

  /// While one lives, the memory can be read and written.
  class Opened {
   public:
    explicit Opened(const Memory& memory) : memory_(memory) { memory.protect(true); }
    ~Opened() { memory_.protect(false); }
    Opened(const Opened&) = delete;
    Opened& operator=(const Opened&) = delete;

   private:
    const Memory& memory_;
  };

 private:
  void protect(bool is_open) const;
  void release(const Allocation& allocation);

  std::size_t capacity_, taken_ = 0;
  std::map<CUdeviceptr, Allocation> allocations_;
};

}  // namespace gpu
