// Where the 16 bytes of a row lie that is swizzled by 128 bytes (PTX ISA, "Swizzling modes").
#pragma once

#include "block.hpp"

namespace SoftwareGPU {

constexpr int swizzle_bytes = 128;
/// The pattern repeats after 8 rows.
constexpr int swizzle_alignment = 8 * swizzle_bytes;

/// Of an address in shared memory: its 16 bytes within a row by the row's number.
inline unsigned char* swizzled(unsigned char* at) {
  unsigned char* const start = block.shared.start();
  const std::size_t offset = static_cast<std::size_t>(at - start);
  return start + (offset ^ ((offset >> 7 & 7) << 4));
}

}  // namespace SoftwareGPU
