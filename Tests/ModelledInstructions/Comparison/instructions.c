// Compiled twice: for a CPU that has them all, and for AVX2 with the model in the place of
// the compiler's header. SIDE names the table.
#include "instructions.h"

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define FUNCTION(name, type, result)                                                     \
  static void name(const void *pa, const void *pb, const void *pc, void *out) {          \
    __m512 a, b, c;                                                                      \
    memcpy(&a, pa, sizeof a), memcpy(&b, pb, sizeof b), memcpy(&c, pc, sizeof c);        \
    (void)a, (void)b, (void)c;                                                           \
    const type r = result;                                                               \
    memcpy(out, &r, sizeof r);                                                           \
  }
#define I(v) ((__m512i)(v))
#define HALF(v) (*(__m256i *)&(v))

FUNCTION(castps128_and_insertf32x4, __m512,
         _mm512_insertf32x4(_mm512_insertf32x4(_mm512_insertf32x4(_mm512_castps128_ps512(*(__m128 *)&a),
                                                                  *(__m128 *)&b, 1),
                                               *(__m128 *)&c, 2),
                            *(__m128 *)&b, 3))
FUNCTION(set1_ps, __m512, _mm512_set1_ps(a[3]))
FUNCTION(set1_epi16, __m512i, _mm512_set1_epi16(*(short *)&a))
FUNCTION(set1_epi32, __m512i, _mm512_set1_epi32(*(int *)&a))
FUNCTION(set_epi16, __m512i,
         _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                          5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0))
FUNCTION(setzero_si512, __m512i, _mm512_setzero_si512())
FUNCTION(broadcast_i64x4, __m512i, _mm512_broadcast_i64x4(HALF(a)))
FUNCTION(add_epi32, __m512i, _mm512_add_epi32(I(a), I(b)))
FUNCTION(sub_epi32, __m512i, _mm512_sub_epi32(I(a), I(b)))
FUNCTION(subs_epu16, __m512i, _mm512_subs_epu16(I(a), I(b)))
FUNCTION(slli_epi32_7, __m512i, _mm512_slli_epi32(I(a), 7))
FUNCTION(slli_epi32_32, __m512i, _mm512_slli_epi32(I(a), 32))
FUNCTION(srli_epi32_16, __m512i, _mm512_srli_epi32(I(a), 16))
FUNCTION(srli_epi32_40, __m512i, _mm512_srli_epi32(I(a), 40))
FUNCTION(and_epi32, __m512i, _mm512_and_epi32(I(a), I(b)))
FUNCTION(or_si512, __m512i, _mm512_or_si512(I(a), I(b)))
FUNCTION(andnot_si512, __m512i, _mm512_andnot_si512(I(a), I(b)))
FUNCTION(ternarylogic_ca, __m512i, _mm512_ternarylogic_epi32(I(a), I(b), I(c), 0xca))
FUNCTION(ternarylogic_1d, __m512i, _mm512_ternarylogic_epi32(I(a), I(b), I(c), 0x1d))
FUNCTION(permutexvar_epi16, __m512i, _mm512_permutexvar_epi16(I(a), I(b)))
FUNCTION(cvtepu8_epi16, __m512i, _mm512_cvtepu8_epi16(HALF(a)))
FUNCTION(cvtepu16_epi32, __m512i, _mm512_cvtepu16_epi32(HALF(a)))
FUNCTION(cvtepi32_epi16, __m256i, _mm512_cvtepi32_epi16(I(a)))
FUNCTION(max_ps, __m512, _mm512_max_ps(a, b))
FUNCTION(mul_ps, __m512, _mm512_mul_ps(a, b))
FUNCTION(cmp_gt, uint16_t, (uint16_t)_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ))
FUNCTION(cvtps_epi32, __m512i, _mm512_cvtps_epi32(a))
FUNCTION(cvtph_ps, __m512, _mm512_cvtph_ps(HALF(a)))
FUNCTION(cvtps_ph, __m256i, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT))
FUNCTION(reduce_down, __m512, _mm512_reduce_ps(a, _MM_FROUND_TO_NEG_INF))
FUNCTION(reduce_up_3, __m512, _mm512_reduce_ps(a, 3 << 4 | _MM_FROUND_TO_POS_INF))
FUNCTION(reduce_to_zero, __m512, _mm512_reduce_ps(a, _MM_FROUND_TO_ZERO))
FUNCTION(reduce_nearest_10, __m512, _mm512_reduce_ps(a, 10 << 4 | _MM_FROUND_TO_NEAREST_INT))
FUNCTION(reduce_current_15, __m512, _mm512_reduce_ps(a, 15 << 4 | _MM_FROUND_CUR_DIRECTION))
FUNCTION(scalef_ps, __m512, _mm512_scalef_ps(a, b))
FUNCTION(dpbf16_ps, __m512, _mm512_dpbf16_ps(a, (__m512bh)b, (__m512bh)c))
FUNCTION(cvtneps_pbh, __m256bh, _mm512_cvtneps_pbh(a))
FUNCTION(cvtne2ps_pbh, __m512bh, _mm512_cvtne2ps_pbh(a, b))

// A tile of 16 rows from one of the operands, each row the one before turned by a lane.
static void turned(const void *row, uint32_t tile[16][16]) {
  memcpy(tile[0], row, 64);
  for (int i = 1; i < 16; i++)
    for (int k = 0; k < 16; k++) tile[i][k] = tile[i - 1][(k + 1) % 16];
}

// The row that `a`'s first number names.
static void tile_dpbf16ps(const void *a, const void *b, const void *c, void *out) {
  uint32_t sums[16][16], left[16][16], right[16][16];
  turned(a, sums), turned(b, left), turned(c, right);
  struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  } config = {.palette = 1};
  for (int tile = 0; tile < 3; tile++) config.row_bytes[tile] = 64, config.rows[tile] = 16;
  _tile_loadconfig(&config);
  _tile_loadd(0, sums, 64);
  _tile_loadd(1, left, 64);
  _tile_stream_loadd(2, right, 64);
  _tile_dpbf16ps(0, 1, 2);
  _tile_stored(0, sums, 64);
  _tile_zero(0);
  _tile_stored(0, left, 64);
  _tile_release();
  memcpy(out, sums[*(const uint8_t *)a % 16], 64);
  for (int k = 0; k < 16; k++) ((uint32_t *)out)[k] |= left[k][k];
}

#define AN(name, needs) {#name, needs, name}
const instruction SIDE[MAX_INSTRUCTIONS] = {
    AN(castps128_and_insertf32x4, AVX512), AN(set1_ps, AVX512), AN(set1_epi16, AVX512),
    AN(set1_epi32, AVX512), AN(set_epi16, AVX512), AN(setzero_si512, AVX512), AN(broadcast_i64x4, AVX512),
    AN(add_epi32, AVX512), AN(sub_epi32, AVX512), AN(subs_epu16, AVX512), AN(slli_epi32_7, AVX512),
    AN(slli_epi32_32, AVX512), AN(srli_epi32_16, AVX512), AN(srli_epi32_40, AVX512), AN(and_epi32, AVX512),
    AN(or_si512, AVX512), AN(andnot_si512, AVX512), AN(ternarylogic_ca, AVX512), AN(ternarylogic_1d, AVX512),
    AN(permutexvar_epi16, AVX512), AN(cvtepu8_epi16, AVX512), AN(cvtepu16_epi32, AVX512),
    AN(cvtepi32_epi16, AVX512), AN(max_ps, AVX512), AN(mul_ps, AVX512), AN(cmp_gt, AVX512),
    AN(cvtps_epi32, AVX512), AN(cvtph_ps, AVX512), AN(cvtps_ph, AVX512), AN(reduce_down, AVX512),
    AN(reduce_up_3, AVX512), AN(reduce_to_zero, AVX512), AN(reduce_nearest_10, AVX512),
    AN(reduce_current_15, AVX512), AN(scalef_ps, AVX512), AN(dpbf16_ps, AVX512_BF16),
    AN(cvtneps_pbh, AVX512_BF16), AN(cvtne2ps_pbh, AVX512_BF16), AN(tile_dpbf16ps, AMX),
};
