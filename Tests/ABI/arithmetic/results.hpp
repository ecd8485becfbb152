// What the library computes in a floating-point state of the caller's.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <xmmintrin.h>

#include "../support.hpp"

namespace arithmetic {

struct Mode {
  const char* name;
  unsigned bits;
};

constexpr unsigned usual = 0x1F80, unmasked = 0;

inline const std::vector<Mode>& modes() {
  static const std::vector<Mode> list{
      {"rounding down", usual | 0x2000},
      {"rounding up", usual | 0x4000},
      {"rounding toward zero", usual | 0x6000},
      {"flushing subnormal numbers", usual | 0x8040},
      {"all exceptions unmasked", unmasked},
      {"all exceptions unmasked, rounding up, some noted", unmasked | 0x4000 | 0x21 << 7}};
  return list;
}

inline unsigned mode_now = usual;

/// Calls the library, and nothing else, in the mode of the moment.
template <class Call>
auto in_mode(Call call) {
  _mm_setcsr(mode_now);
  const auto result = call();
  const unsigned after = _mm_getcsr();
  _mm_setcsr(usual);
  EXPECT(after == mode_now, "%#x is %#x after a call", mode_now, after);
  return result;
}

inline void good(mla_status status) { mla::check(status); }

using Bytes = std::vector<std::uint8_t>;

/// Of the backends whose objects and runs are compared.
inline const test::Model model{2, 16, 8, 16, 512};

/// New tokens, a chunk in which a request has no keys, and the merge of both.
Bytes backend_results(const char* name, std::int32_t isa, std::int32_t dtype);

/// A cache filled, and a layer of quantized weights on it.
Bytes layer_results(const char* backend, std::int32_t isa, std::int32_t algorithm,
                    std::int32_t cache_format);

/// Everything that computes, on one table.
Bytes results(std::int32_t isa);

}  // namespace arithmetic
