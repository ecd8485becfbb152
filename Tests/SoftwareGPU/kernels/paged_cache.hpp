// A paged cache in what is a GPU's memory for a test.
#pragma once

#include <SoftwareGPU.hpp>
#include <vector>

#include "problem.hpp"

/// A cache of bytes, each of which is known.
struct Cache {
  static constexpr int blocks = 3, block_size = 5, slots = blocks * block_size;
  static constexpr unsigned char untouched = 0xa5;
  const long long slot_stride, block_stride;
  std::vector<unsigned char> memory;
  const int first;

  /// `skew`: what its addresses differ from multiples of 8 by; 0: as elements need them.
  explicit Cache(int slot_bytes, int skew = 0)
      : slot_stride(slot_bytes + (skew ? 2 : 8)),
        block_stride(block_size * slot_stride + 16 + skew),
        memory(static_cast<std::size_t>(8 + blocks * block_stride), untouched),
        first(static_cast<int>(8 - reinterpret_cast<std::uintptr_t>(memory.data()) % 8) % 8 + skew) {
    SoftwareGPU::memory.allow(memory.data(), memory.size());
  }
  ~Cache() { SoftwareGPU::memory.forbid(memory.data()); }

  unsigned char* at(long long slot, int offset) {
    return &memory[first + slot / block_size * block_stride + slot % block_size * slot_stride + offset];
  }
  mla_cuda_cache_rows rows(int offset, int width, Format format) {
    return {memory.data() + first + offset, block_stride, slot_stride, width, dtype_of(format)};
  }
};
