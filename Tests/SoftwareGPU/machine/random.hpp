// Numbers that depend on the seed of a launch alone.
#pragma once

#include <cstdint>

namespace SoftwareGPU {

class Random {
 public:
  explicit Random(std::uint64_t seed = 1) : state_(seed) {}

  /// splitmix64.
  std::uint64_t next() {
    std::uint64_t z = state_ += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  /// 0 up to, without, `bound`.
  std::uint32_t below(std::uint32_t bound) { return static_cast<std::uint32_t>((next() >> 32) * bound >> 32); }
  bool one_in(std::uint32_t count) { return below(count) == 0; }

 private:
  std::uint64_t state_;
};

}  // namespace SoftwareGPU
