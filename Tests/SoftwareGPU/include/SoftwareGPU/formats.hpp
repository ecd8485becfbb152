// Numbers of two bytes, and the instructions that convert and approximate.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

typedef std::uint8_t u8;
typedef std::uint16_t u16;
typedef std::uint32_t u32;
typedef unsigned long long u64;

inline u32 bits_of(float value) {
  u32 bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

inline float float_of(u32 bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

/// cvt.f32.f16.
float fp16_value(u16 bits);

/// cvt.rn.bf16x2.f32 and cvt.rn.f16x2.f32: `low` in the low half.
u32 pack_bf16(float low, float high);
u32 pack_fp16(float low, float high);

/// ex2.approx.ftz.f32 and lg2.approx.ftz.f32.
float exp2_approx(float value);
float log2_approx(float value);
