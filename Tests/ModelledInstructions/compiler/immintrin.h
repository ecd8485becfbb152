// Takes the compiler's place of this name in the kernel modules of the model build: they
// are compiled for AVX2, with the macros defined that tell of more (see Package.swift),
// and the intrinsics that need more are functions of modelled_vectors.h and
// modelled_tiles.h. A shim that uses one that is not here does not compile.
#ifndef MODELLED_IMMINTRIN_H
#define MODELLED_IMMINTRIN_H

#include_next <immintrin.h>

#include "modelled_tiles.h"
#include "modelled_vectors.h"

#define _mm512_castps128_ps512 modelled_castps128_ps512
#undef _mm512_insertf32x4
#define _mm512_insertf32x4 modelled_insertf32x4
#define _mm512_set1_ps modelled_set1_ps
#define _mm512_set1_epi16 modelled_set1_epi16
#define _mm512_set1_epi32 modelled_set1_epi32
#define _mm512_set_epi16(...) modelled_reversed((modelled_u16x32){__VA_ARGS__})
#define _mm512_setzero_si512 modelled_setzero_si512
#define _mm512_broadcast_i64x4 modelled_broadcast_i64x4

#define _mm512_add_epi32 modelled_add_epi32
#define _mm512_sub_epi32 modelled_sub_epi32
#define _mm512_subs_epu16 modelled_subs_epu16
#define _mm512_slli_epi32 modelled_slli_epi32
#define _mm512_srli_epi32 modelled_srli_epi32
#define _mm512_and_epi32 modelled_and_epi32
#define _mm512_or_si512 modelled_or_si512
#define _mm512_andnot_si512 modelled_andnot_si512
#undef _mm512_ternarylogic_epi32
#define _mm512_ternarylogic_epi32 modelled_ternarylogic_epi32
#define _mm512_permutexvar_epi16 modelled_permutexvar_epi16
#define _mm512_cvtepu8_epi16 modelled_cvtepu8_epi16
#define _mm512_cvtepu16_epi32 modelled_cvtepu16_epi32
#define _mm512_cvtepi32_epi16 modelled_cvtepi32_epi16

#define _mm512_max_ps modelled_max_ps
#define _mm512_mul_ps modelled_mul_ps
#undef _mm512_cmp_ps_mask
#define _mm512_cmp_ps_mask(a, b, predicate)                                       \
  modelled_mask(_mm256_cmp_ps(modelled_low(a), modelled_low(b), predicate), \
                _mm256_cmp_ps(modelled_high(a), modelled_high(b), predicate))
#undef _mm512_reduce_ps
#define _mm512_reduce_ps modelled_reduce_ps
#define _mm512_scalef_ps modelled_scalef_ps
#define _mm512_cvtps_epi32 modelled_cvtps_epi32
#define _mm512_cvtph_ps modelled_cvtph_ps
#undef _mm512_cvtps_ph
#define _mm512_cvtps_ph(v, rounding)                                    \
  modelled_join_i(_mm256_cvtps_ph(modelled_low(v), rounding),     \
                  _mm256_cvtps_ph(modelled_high(v), rounding))

#define _mm512_dpbf16_ps modelled_dpbf16_ps
#define _mm512_cvtneps_pbh modelled_cvtneps_pbh
#define _mm512_cvtne2ps_pbh modelled_cvtne2ps_pbh

#undef _tile_loadconfig
#define _tile_loadconfig modelled_tile_loadconfig
#undef _tile_release
#define _tile_release modelled_tile_release
#undef _tile_zero
#define _tile_zero modelled_tile_zero
#undef _tile_loadd
#define _tile_loadd modelled_tile_loadd
#undef _tile_stream_loadd
#define _tile_stream_loadd modelled_tile_loadd
#undef _tile_stored
#define _tile_stored modelled_tile_stored
#undef _tile_dpbf16ps
#define _tile_dpbf16ps modelled_tile_dpbf16ps

#endif  // MODELLED_IMMINTRIN_H
