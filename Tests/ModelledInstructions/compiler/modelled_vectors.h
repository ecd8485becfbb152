// Vector instructions of AVX-512 and AVX512_BF16, spelled with those of AVX2, FMA and
// F16C. Each has the bits of the real one, whatever MXCSR says; where the real one
// consults MXCSR, so do the instructions that stand for it.
#ifndef MODELLED_VECTORS_H
#define MODELLED_VECTORS_H

#include <immintrin.h>
#include <stdint.h>

#define MODELLED static inline __attribute__((always_inline))

typedef float modelled_f32x16 __attribute__((ext_vector_type(16)));
typedef uint32_t modelled_u32x16 __attribute__((ext_vector_type(16)));
typedef uint16_t modelled_u16x16 __attribute__((ext_vector_type(16)));
typedef uint16_t modelled_u16x32 __attribute__((ext_vector_type(32)));
typedef uint8_t modelled_u8x32 __attribute__((ext_vector_type(32)));

// MARK: halves

MODELLED __m256 modelled_low(__m512 v) {
  return __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7);
}
MODELLED __m256 modelled_high(__m512 v) {
  return __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
}
MODELLED __m512 modelled_join(__m256 low, __m256 high) {
  return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
MODELLED __m256i modelled_join_i(__m128i low, __m128i high) { return _mm256_set_m128i(high, low); }

// MARK: setting

MODELLED __m512 modelled_set1_ps(float x) { return (__m512)(modelled_f32x16)x; }
MODELLED __m512i modelled_set1_epi16(short x) { return (__m512i)(modelled_u16x32)(uint16_t)x; }
MODELLED __m512i modelled_set1_epi32(int x) { return (__m512i)(modelled_u32x16)(uint32_t)x; }
MODELLED __m512i modelled_setzero_si512(void) { return (__m512i){0}; }
MODELLED __m512i modelled_reversed(modelled_u16x32 v) {
  return (__m512i)__builtin_shufflevector(v, v, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19,
                                          18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2,
                                          1, 0);
}
MODELLED __m512i modelled_broadcast_i64x4(__m256i v) {
  return __builtin_shufflevector(v, v, 0, 1, 2, 3, 0, 1, 2, 3);
}
MODELLED __m512 modelled_castps128_ps512(__m128 v) {
  const __m256 low = _mm256_castps128_ps256(v);
  return modelled_join(low, low);
}
MODELLED __m512 modelled_insertf32x4(__m512 v, __m128 part, int place) {
  modelled_f32x16 inserted = (modelled_f32x16)v;
  for (int i = 0; i < 4; i++) inserted[4 * place + i] = part[i];
  return (__m512)inserted;
}

// MARK: integers

MODELLED __m512i modelled_add_epi32(__m512i a, __m512i b) {
  return (__m512i)((modelled_u32x16)a + (modelled_u32x16)b);
}
MODELLED __m512i modelled_sub_epi32(__m512i a, __m512i b) {
  return (__m512i)((modelled_u32x16)a - (modelled_u32x16)b);
}
MODELLED __m512i modelled_subs_epu16(__m512i a, __m512i b) {
  return (__m512i)__builtin_elementwise_sub_sat((modelled_u16x32)a, (modelled_u16x32)b);
}
MODELLED __m512i modelled_slli_epi32(__m512i v, unsigned count) {
  return count > 31 ? (__m512i){0} : (__m512i)((modelled_u32x16)v << count);
}
MODELLED __m512i modelled_srli_epi32(__m512i v, unsigned count) {
  return count > 31 ? (__m512i){0} : (__m512i)((modelled_u32x16)v >> count);
}
MODELLED __m512i modelled_and_epi32(__m512i a, __m512i b) { return a & b; }
MODELLED __m512i modelled_or_si512(__m512i a, __m512i b) { return a | b; }
MODELLED __m512i modelled_andnot_si512(__m512i a, __m512i b) { return ~a & b; }
// Bit i of `table` is the result where the bits of a, b and c spell i.
MODELLED __m512i modelled_ternarylogic_epi32(__m512i a, __m512i b, __m512i c, int table) {
  __m512i result = {0};
  for (int i = 0; i < 8; i++)
    if (table >> i & 1) result |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
  return result;
}
MODELLED __m512i modelled_permutexvar_epi16(__m512i indices, __m512i numbers) {
  const modelled_u16x32 from = (modelled_u16x32)numbers, at = (modelled_u16x32)indices;
  modelled_u16x32 result;
  for (int i = 0; i < 32; i++) result[i] = from[at[i] & 31];
  return (__m512i)result;
}
MODELLED __m512i modelled_cvtepu8_epi16(__m256i v) {
  return (__m512i)__builtin_convertvector((modelled_u8x32)v, modelled_u16x32);
}
MODELLED __m512i modelled_cvtepu16_epi32(__m256i v) {
  return (__m512i)__builtin_convertvector((modelled_u16x16)v, modelled_u32x16);
}
MODELLED __m256i modelled_cvtepi32_epi16(__m512i v) {
  return (__m256i)__builtin_convertvector((modelled_u32x16)v, modelled_u16x16);
}

// MARK: floats

MODELLED __m512 modelled_max_ps(__m512 a, __m512 b) {
  return modelled_join(_mm256_max_ps(modelled_low(a), modelled_low(b)),
                       _mm256_max_ps(modelled_high(a), modelled_high(b)));
}
MODELLED __m512 modelled_mul_ps(__m512 a, __m512 b) {
  return modelled_join(_mm256_mul_ps(modelled_low(a), modelled_low(b)),
                       _mm256_mul_ps(modelled_high(a), modelled_high(b)));
}
MODELLED __mmask16 modelled_mask(__m256 low, __m256 high) {
  return (__mmask16)(_mm256_movemask_ps(low) | _mm256_movemask_ps(high) << 8);
}
MODELLED __m512i modelled_cvtps_epi32(__m512 v) {
  return (__m512i)modelled_join((__m256)_mm256_cvtps_epi32(modelled_low(v)),
                                (__m256)_mm256_cvtps_epi32(modelled_high(v)));
}
MODELLED __m512 modelled_cvtph_ps(__m256i v) {
  return modelled_join(_mm256_cvtph_ps(_mm256_castsi256_si128(v)),
                       _mm256_cvtph_ps(_mm256_extracti128_si256(v, 1)));
}

// VREDUCEPS: what is left of x beyond a multiple of 2^-M, M being `how`'s upper four bits.
// Its lower bits say how all of it is rounded, the difference included.
MODELLED __m256 modelled_reduce_half(__m256 x, int how) {
  const float steps = (float)(1 << (how >> 4 & 15));
  const __m256 per_unit = _mm256_set1_ps(steps), step = _mm256_set1_ps(1 / steps);
  const __m256 magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
  // Nothing is left of integers, which all numbers from 2^23 on are.
  const __m256 whole = _mm256_cmp_ps(magnitude, _mm256_set1_ps(0x1p23f), _CMP_GE_OQ);
  const __m256 number = _mm256_andnot_ps(whole, x);
  const __m256 infinite = _mm256_cmp_ps(magnitude, _mm256_set1_ps(__builtin_inff()), _CMP_EQ_OQ);
  uint32_t callers, rounding, gradual;
  __asm__ volatile("vstmxcsr %0" : "=m"(callers));
  rounding = (callers | 0x1f80) & (how & 4 ? ~0u : ~0x6000u);
  if (!(how & 4)) rounding |= (uint32_t)(how & 3) << 13;
  gradual = rounding & ~0x8000u;
  __m256 rest;
  // One statement: the compiler knows nothing of MXCSR.
  __asm__ volatile(
      "vldmxcsr %[gradual]\n\t"
      "vmulps %[number], %[per_unit], %[rest]\n\t"
      "vroundps $4, %[rest], %[rest]\n\t"
      "vmulps %[rest], %[step], %[rest]\n\t"
      "vldmxcsr %[rounding]\n\t"
      "vsubps %[rest], %[number], %[rest]\n\t"
      "vldmxcsr %[callers]"
      : [rest] "=&x"(rest)
      : [number] "x"(number), [per_unit] "x"(per_unit), [step] "x"(step), [callers] "m"(callers),
        [rounding] "m"(rounding), [gradual] "m"(gradual));
  return _mm256_andnot_ps(infinite, rest);
}
MODELLED __m512 modelled_reduce_ps(__m512 x, int how) {
  return modelled_join(modelled_reduce_half(modelled_low(x), how),
                       modelled_reduce_half(modelled_high(x), how));
}

// VSCALEFPS: a * 2^floor(x), rounded once.
MODELLED float modelled_scalef(float a, float x) {
  const float infinity = __builtin_inff();
  if (a != a) {
    const _Bool quiet = __builtin_bit_cast(uint32_t, a) >> 22 & 1;
    if (quiet && x == infinity) return infinity;
    if (quiet && x == -infinity) return 0;
    return a + a;
  }
  if (x != x) return x + x;
  if (x == infinity) return a * infinity;
  if (x == -infinity) return a / infinity;
  // In double precision the product is exact; beyond these powers all are 0 or infinite.
  const int power = (int)__builtin_floorf(x < -600 ? -600 : x > 600 ? 600 : x);
  return (float)((double)a * __builtin_bit_cast(double, (uint64_t)(1023 + power) << 52));
}
MODELLED __m512 modelled_scalef_ps(__m512 a, __m512 x) {
  modelled_f32x16 result;
  for (int i = 0; i < 16; i++) result[i] = modelled_scalef(a[i], x[i]);
  return (__m512)result;
}

// MARK: bf16

// VCVTNEPS2BF16: to nearest even, subnormal numbers to 0, whatever MXCSR says.
MODELLED modelled_u16x16 modelled_to_bf16(__m512 v) {
  const modelled_u32x16 bits = (modelled_u32x16)v, magnitude = bits & 0x7fffffffu;
  modelled_u32x16 rounded = bits + 0x7fffu + (bits >> 16 & 1);
  rounded = magnitude > 0x7f800000u ? bits | 0x400000u : rounded;
  rounded = magnitude < 0x00800000u ? bits & 0x80000000u : rounded;
  return __builtin_convertvector(rounded >> 16, modelled_u16x16);
}
MODELLED __m256bh modelled_cvtneps_pbh(__m512 v) { return (__m256bh)modelled_to_bf16(v); }
MODELLED __m512bh modelled_cvtne2ps_pbh(__m512 high, __m512 low) {
  return (__m512bh)modelled_join((__m256)modelled_to_bf16(low), (__m256)modelled_to_bf16(high));
}

// VDPBF16PS: the odd product is added first, then the even one, each fused and to nearest,
// with subnormal operands and results being 0, whatever MXCSR says.
MODELLED __m256 modelled_dpbf16_half(__m256 sum, __m256i a, __m256i b) {
  const __m256i upper = _mm256_set1_epi32((int)0xffff0000u);
  const __m256i odd_a = _mm256_and_si256(a, upper), odd_b = _mm256_and_si256(b, upper);
  const __m256i even_a = _mm256_slli_epi32(a, 16), even_b = _mm256_slli_epi32(b, 16);
  const uint32_t flushing = 0x9fc0;
  uint32_t callers;
  // One statement: the compiler knows nothing of MXCSR.
  __asm__ volatile(
      "vstmxcsr %[callers]\n\t"
      "vldmxcsr %[flushing]\n\t"
      "vfmadd231ps %[odd_b], %[odd_a], %[sum]\n\t"
      "vfmadd231ps %[even_b], %[even_a], %[sum]\n\t"
      "vldmxcsr %[callers]"
      : [sum] "+x"(sum), [callers] "=&m"(callers)
      : [odd_a] "x"(odd_a), [odd_b] "x"(odd_b), [even_a] "x"(even_a), [even_b] "x"(even_b),
        [flushing] "m"(flushing));
  return sum;
}
MODELLED __m512 modelled_dpbf16_ps(__m512 sum, __m512bh a, __m512bh b) {
  const __m512 left = (__m512)a, right = (__m512)b;
  return modelled_join(
      modelled_dpbf16_half(modelled_low(sum), (__m256i)modelled_low(left),
                           (__m256i)modelled_low(right)),
      modelled_dpbf16_half(modelled_high(sum), (__m256i)modelled_high(left),
                           (__m256i)modelled_high(right)));
}

#endif  // MODELLED_VECTORS_H
