/*
 * What tensors are made of: how an element becomes an fp32 and back, and for those of
 * attention which instruction multiplies them.
 */
#pragma once
#include "Instructions.cuh"
#include "mla_cuda_kernels.h"

// MLA_DTYPE_* of mla_prefill.h.
enum { DTYPE_FP32 = 1, DTYPE_FP16 = 2, DTYPE_BF16 = 3, DTYPE_FP8_E4M3 = 4 };

// No constants: compilers of CUDA 12.0 have no spelling for those.
DEVICE float infinity() { return float_of(0x7f800000); }
DEVICE float largest_number() { return float_of(0x7f7fffff); }
DEVICE float not_a_number() { return float_of(0x7fffffff); }
// Softmax works in powers of two; lse is a natural logarithm.
constexpr float log2_e = 1.44269504f, ln_2 = 0.693147181f;

struct BF16 {
  using Bits = u16;
  static constexpr bool is_fp16 = false;
  /** What weights, of 1 at most, are multiplied by before they are rounded to this format,
      and its logarithm: exponents reach as far as fp32's. */
  static constexpr float weight_scale = 1, weight_exponent = 0;

  static DEVICE float value(u16 bits) { return bf16_value(bits); }
  static DEVICE u16 bits(float x) { return static_cast<u16>(pack_bf16(x, 0)); }
  static DEVICE u32 pack(float low, float high) { return pack_bf16(low, high); }
  static DEVICE bool is_finite(u32 bits) { return (bits & 0x7f80) != 0x7f80; }
  static DEVICE void multiply_add(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    multiply_add_bf16(d, a, b0, b1);
  }
};

struct FP16 {
  using Bits = u16;
  static constexpr bool is_fp16 = true;
  /** 2^-24 is the smallest number: many weights below, beside a large one, would be lost. */
  static constexpr float weight_scale = 32768, weight_exponent = 15;

  static DEVICE float value(u16 bits) { return fp16_value(bits); }
  static DEVICE u16 bits(float x) { return static_cast<u16>(pack_fp16(x, 0)); }
  static DEVICE u32 pack(float low, float high) { return pack_fp16(low, high); }
  static DEVICE bool is_finite(u32 bits) { return (bits & 0x7c00) != 0x7c00; }
  static DEVICE void multiply_add(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    multiply_add_fp16(d, a, b0, b1);
  }
};

struct FP32 {
  using Bits = u32;
  static DEVICE float value(u32 bits) { return float_of(bits); }
  static DEVICE u32 bits(float x) { return bits_of(x); }
};

/** The e4m3fn code nearest to x, of two the even one; beyond 448 that of 448, NaN of NaN. In
    integers, so that an architecture without the instruction has the same bits. */
DEVICE u32 fp8_bits(float x) {
  const u32 sign = bits_of(x) >> 24 & 0x80;
  u32 size = bits_of(x) & 0x7fffffff;
  if (size > 0x7f800000) return 0x7f;
  // 448; then 2^-6, the smallest that is normal.
  if (size > 0x43e00000) size = 0x43e00000;
  if (size >= 0x3c800000) return sign | (((size + 0x7ffff + (size >> 20 & 1)) >> 20) - ((127 - 7) << 3));
  // Below they are multiples of 2^-9, to which a sum with 2^14 is rounded.
  return sign | (bits_of(float_of(size) + 16384.0f) - bits_of(16384.0f));
}

struct FP8 {
  using Bits = u8;
  /** Exponent and mantissa as fp32's, whose exponents begin 120 lower; subnormal numbers, too. */
  static DEVICE float value(u8 bits) {
    const u32 size = bits & 0x7f;
    return size == 0x7f ? not_a_number() : float_of(static_cast<u32>(bits & 0x80) << 24 | size << 20) * 0x1p120f;
  }
  static DEVICE u8 bits(float x) { return static_cast<u8>(fp8_bits(x)); }
};

/** So many elements, in memory at a multiple of their size. */
template <class Element, int COUNT> struct alignas(COUNT * sizeof(typename Element::Bits)) Piece {
  typename Element::Bits elements[COUNT];
};

/** Writes numbers 16 bytes at a time, or each by itself where the address allows no more. */
template <class Element, int COUNT>
DEVICE void store_rounded(unsigned char *target, const float (&values)[COUNT], bool at_once) {
  constexpr int element_bytes = sizeof(typename Element::Bits);
  constexpr int each = COUNT * element_bytes > 16 ? 16 / element_bytes : COUNT;
#pragma unroll
  for (int first = 0; first < COUNT; first += each) {
    Piece<Element, each> piece;
#pragma unroll
    for (int i = 0; i < each; ++i) piece.elements[i] = Element::bits(values[first + i]);
    unsigned char *const place = target + first * element_bytes;
    if (at_once) {
      store_global(place, piece);
    } else {
#pragma unroll
      for (int i = 0; i < each; ++i) store_global(place + i * element_bytes, piece.elements[i]);
    }
  }
}
