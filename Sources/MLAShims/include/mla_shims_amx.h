// Tile instructions, and the few vector instructions that only a tile kernel
// asks for. Which tile register an instruction names is part of its encoding,
// so there is one function per register.
#ifndef MLA_SHIMS_AMX_H
#define MLA_SHIMS_AMX_H

#include <stdint.h>

#include "mla_shims_vector.h"

#if defined(__AMX_TILE__) && defined(__AMX_BF16__)

// `config`: the 64 bytes of LDTILECFG.
MLA_INLINE void mla_tile_configure(const void *config) { _tile_loadconfig(config); }
MLA_INLINE void mla_tile_release(void) { _tile_release(); }

// A register is an accumulator (0-3), a left operand (4, 5) or a right one (6,
// 7): four products of two left and two right operands.
#define MLA_TILE_ZERO(n) \
  MLA_INLINE void mla_tile_zero_##n(void) { _tile_zero(n); }
#define MLA_TILE_LOAD(n) \
  MLA_INLINE void mla_tile_load_##n(const void *p, int64_t pitch) { _tile_loadd(n, p, pitch); }
// Hints that the memory will not be needed again soon.
#define MLA_TILE_STREAM(n)                                          \
  MLA_INLINE void mla_tile_stream_##n(const void *p, int64_t pitch) { \
    _tile_stream_loadd(n, p, pitch);                                \
  }
#define MLA_TILE_STORE(n) \
  MLA_INLINE void mla_tile_store_##n(void *p, int64_t pitch) { _tile_stored(n, p, pitch); }
// Accumulator `c` gains left operand `a` times right operand `b`, pairs of bf16.
#define MLA_TILE_DOT(c, a, b) \
  MLA_INLINE void mla_tile_dot_bf16_##c##_##a##_##b(void) { _tile_dpbf16ps(c, a, b); }

MLA_TILE_ZERO(0)
MLA_TILE_ZERO(1)
MLA_TILE_ZERO(2)
MLA_TILE_ZERO(3)
MLA_TILE_LOAD(0)
MLA_TILE_LOAD(1)
MLA_TILE_LOAD(2)
MLA_TILE_LOAD(3)
MLA_TILE_LOAD(6)
MLA_TILE_LOAD(7)
MLA_TILE_STREAM(4)
MLA_TILE_STREAM(5)
MLA_TILE_STORE(0)
MLA_TILE_STORE(1)
MLA_TILE_STORE(2)
MLA_TILE_STORE(3)
MLA_TILE_DOT(0, 4, 6)
MLA_TILE_DOT(1, 4, 7)
MLA_TILE_DOT(2, 5, 6)
MLA_TILE_DOT(3, 5, 7)

#undef MLA_TILE_ZERO
#undef MLA_TILE_LOAD
#undef MLA_TILE_STREAM
#undef MLA_TILE_STORE
#undef MLA_TILE_DOT

// Rounds two vectors to bf16, ties away from zero, and pairs them lane by lane:
// low in bits 0-15. No NaN survives. Four instructions that any vector port
// runs, where the conversion and its permutation want the tiles' own port.
MLA_INLINE mla_f32v mla_pair_numbers_bf16(mla_f32v low, mla_f32v high) {
  const __m512i half = _mm512_set1_epi32(0x8000);
  const __m512i upper = _mm512_set1_epi32((int)0xffff0000u);
  const __m512i l = _mm512_srli_epi32(_mm512_add_epi32((__m512i)low, half), 16);
  const __m512i h = _mm512_add_epi32((__m512i)high, half);
  return (mla_f32v)_mm512_ternarylogic_epi32(upper, h, l, 0xca);  // upper ? h : l
}

// A bf16 below each number that is positive, by 2^-9 to 2^-6 of it; 0 for 0.
MLA_INLINE mla_f32v mla_below_bf16(mla_f32v v) {
  const __m512i below = (__m512i)_mm512_mul_ps((__m512)v, _mm512_set1_ps(1 - 0x1p-9f));
  return (mla_f32v)_mm512_and_epi32(below, _mm512_set1_epi32((int)0xffff0000u));
}

// What each number is beyond the nearest multiple of 2^-10.
MLA_INLINE mla_f32v mla_beyond_step(mla_f32v x) {
  return (mla_f32v)_mm512_reduce_ps((__m512)x, 10 << 4 | _MM_FROUND_TO_NEAREST_INT);
}

// Lanes of a and b in turn, of the lower halves and of the upper ones.
MLA_INLINE mla_f32v mla_interleave_low(mla_f32v a, mla_f32v b) {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
MLA_INLINE mla_f32v mla_interleave_high(mla_f32v a, mla_f32v b) {
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15,
                                 31);
}

// Rounds to the nearest bf16.
MLA_INLINE mla_f32v mla_round_bf16(mla_f32v v) {
  const __m512i bits = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)v));
  return (mla_f32v)_mm512_slli_epi32(bits, 16);
}

// Rounds to the nearest fp16.
MLA_INLINE mla_f32v mla_round_f16(mla_f32v v) {
  return (mla_f32v)_mm512_cvtph_ps(_mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT));
}

// Rounds two vectors to bf16, side by side: low in the lower half.
MLA_INLINE mla_f32v mla_join_bf16(mla_f32v low, mla_f32v high) {
  return (mla_f32v)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
}

// Numbers of bf16 are divided by powers of two in their exponents: what `changes`,
// integers up to 0, take off both numbers of a pair,
MLA_INLINE mla_f32v mla_lowering_of_pairs(mla_f32v changes) {
  const __m512i most = _mm512_cvtps_epi32(_mm512_max_ps((__m512)changes, _mm512_set1_ps(-255)));
  const __m512i powers = _mm512_slli_epi32(_mm512_sub_epi32(_mm512_setzero_si512(), most), 7);
  return (mla_f32v)_mm512_or_si512(powers, _mm512_slli_epi32(powers, 16));
}
// and pairs of numbers with it taken off. Tiles take what becomes subnormal for 0.
MLA_INLINE mla_f32v mla_lower_pairs(mla_f32v numbers, mla_f32v lowering) {
  const __m512i sign = _mm512_set1_epi16((short)0x8000);
  const __m512i magnitudes = _mm512_andnot_si512(sign, (__m512i)numbers);
  const __m512i lowered = _mm512_subs_epu16(magnitudes, (__m512i)lowering);
  return (mla_f32v)_mm512_ternarylogic_epi32(sign, (__m512i)numbers, lowered, 0xca);  // sign ? numbers : lowered
}

// Rounds two vectors to fp16 and pairs them lane by lane: low in bits 0-15.
MLA_INLINE mla_f32v mla_pair_f16(mla_f32v low, mla_f32v high) {
  const __m512i l = _mm512_cvtepu16_epi32(_mm512_cvtps_ph((__m512)low, _MM_FROUND_TO_NEAREST_INT));
  const __m512i h = _mm512_cvtepu16_epi32(_mm512_cvtps_ph((__m512)high, _MM_FROUND_TO_NEAREST_INT));
  return (mla_f32v)_mm512_or_si512(l, _mm512_slli_epi32(h, 16));
}

// Whether any lane of a is greater than b's; a NaN is not greater.
MLA_INLINE _Bool mla_any_greater(mla_f32v a, mla_f32v b) {
  return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ) != 0;
}

// Brings a cache line into the second-level cache; any address will do.
MLA_INLINE void mla_prefetch_second_level(const void *p) {
  _mm_prefetch((const char *)p, _MM_HINT_T1);
}

#endif

#endif  // MLA_SHIMS_AMX_H
