// A thread's floating-point state, and those that the library is called in.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace arithmetic {

#if defined(__x86_64__)

/// MXCSR.
using Bits = unsigned;

inline Bits mode_of_thread() { return _mm_getcsr(); }
inline void set_mode(Bits bits) { _mm_setcsr(bits); }

constexpr Bits usual = 0x1F80, unmasked = 0, up = 0x4000, down = 0x2000, toward_zero = 0x6000;
constexpr Bits flushing = 0x8040, noted = 0x3F, some_masked = 0x21 << 7;

#elif defined(__aarch64__)

/// FPCR, and FPSR above it.
using Bits = std::uint64_t;

inline Bits mode_of_thread() {
  Bits control, status;
  __asm__ volatile("mrs %0, fpcr\n\tmrs %1, fpsr" : "=r"(control), "=r"(status));
  return status << 32 | control;
}
inline void set_mode(Bits bits) {
  const Bits control = bits & 0xFFFFFFFF, status = bits >> 32;
  __asm__ volatile("msr fpcr, %0\n\tmsr fpsr, %1" : : "r"(control), "r"(status));
}

constexpr Bits usual = 0, up = 1 << 22, down = 2 << 22, toward_zero = 3 << 22;
/// Also of fp16.
constexpr Bits flushing = 1 << 24 | 1 << 19, noted = Bits{0x9F} << 32;
/// Default NaNs and the other format of fp16.
constexpr Bits other_formats = 1 << 25 | 1 << 26;
/// FEAT_AFP's AH, FIZ and NEP, FEAT_EBF16's EBF.
constexpr Bits of_later_cores = 7 | 1 << 13;
constexpr Bits trapped = 0x9F00;

#endif

struct Mode {
  const char* name;
  Bits bits;
};

inline const std::vector<Mode>& modes() {
  static const std::vector<Mode> list = [] {
    std::vector<Mode> all{{"rounding down", usual | down},
                          {"rounding up", usual | up},
                          {"rounding toward zero", usual | toward_zero},
                          {"flushing subnormal numbers", usual | flushing},
#if defined(__x86_64__)
                          {"all exceptions unmasked", unmasked},
                          {"all exceptions unmasked, rounding up, some noted", unmasked | up | some_masked}};
#elif defined(__aarch64__)
                          {"other formats", other_formats},
                          {"bits of later cores", of_later_cores},
                          {"all exceptions trapped", trapped},
                          {"all exceptions trapped, rounding up, noted", trapped | up | noted}};
    // What a core does not have reads as 0.
    for (Mode& mode : all) {
      set_mode(mode.bits);
      mode.bits = mode_of_thread();
      set_mode(usual);
    }
#endif
    return all;
  }();
  return list;
}

inline Bits mode_now = usual;

}  // namespace arithmetic
