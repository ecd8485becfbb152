// Numbers of a seed.
#pragma once

#include <cmath>
#include <cstdint>

class Random {
 public:
  explicit Random(std::uint64_t seed) : state(seed) {}

  /// SplitMix64.
  std::uint64_t next() {
    std::uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
  }

  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  bool chance(double probability) { return uniform() < probability; }
  /// Both included.
  int between(int low, int high) { return low + static_cast<int>(next() % static_cast<unsigned>(high - low + 1)); }
  double normal() { return std::sqrt(-2 * std::log(1 - uniform())) * std::cos(6.283185307179586 * uniform()); }

  template <class T, std::size_t count>
  T pick(const T (&of)[count]) {
    return of[next() % count];
  }

 private:
  std::uint64_t state;
};
