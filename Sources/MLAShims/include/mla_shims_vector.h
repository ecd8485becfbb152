// Vector instructions at the width of the module's own instruction set: 16 lanes
// under AVX-512, 8 under AVX2 and, as two registers, for Arm's own kernels (MLA_NEON), 4
// elsewhere. The same names everywhere, so that kernels of all widths share their source.
#ifndef MLA_SHIMS_VECTOR_H
#define MLA_SHIMS_VECTOR_H

#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#elif defined(MLA_NEON) && defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define MLA_NEON_BF16
#include <arm_neon.h>
#endif

#define MLA_INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__)
#define MLA_LANES 16
#elif defined(__AVX2__) || defined(MLA_NEON)
#define MLA_LANES 8
#else
#define MLA_LANES 4
#endif

typedef float mla_f32v __attribute__((ext_vector_type(MLA_LANES)));
typedef uint32_t mla_u32v __attribute__((ext_vector_type(MLA_LANES)));
typedef uint16_t mla_u16v __attribute__((ext_vector_type(MLA_LANES)));
typedef uint8_t mla_u8v __attribute__((ext_vector_type(MLA_LANES)));

// Loads and stores at any alignment.
MLA_INLINE mla_f32v mla_load_f32(const void *p) {
  mla_f32v v;
  memcpy(&v, p, sizeof v);
  return v;
}
MLA_INLINE void mla_store_f32(void *p, mla_f32v v) { memcpy(p, &v, sizeof v); }
MLA_INLINE mla_u32v mla_load_u16(const void *p) {
  mla_u16v v;
  memcpy(&v, p, sizeof v);
  return __builtin_convertvector(v, mla_u32v);
}
MLA_INLINE mla_u32v mla_load_u8(const void *p) {
  mla_u8v v;
  memcpy(&v, p, sizeof v);
  return __builtin_convertvector(v, mla_u32v);
}
MLA_INLINE void mla_store_u16(void *p, mla_u32v v) {
  mla_u16v narrow = __builtin_convertvector(v, mla_u16v);
  memcpy(p, &narrow, sizeof narrow);
}
MLA_INLINE void mla_store_u8(void *p, mla_u32v v) {
  mla_u8v narrow = __builtin_convertvector(v, mla_u8v);
  memcpy(p, &narrow, sizeof narrow);
}

MLA_INLINE mla_u32v mla_bits(mla_f32v v) { return (mla_u32v)v; }
MLA_INLINE mla_f32v mla_from_bits(mla_u32v v) { return (mla_f32v)v; }

// a * b + c, fused where the instruction set fuses.
MLA_INLINE mla_f32v mla_multiply_add(mla_f32v a, mla_f32v b, mla_f32v c) {
#if defined(__FMA__) || defined(__AVX512F__) || defined(MLA_NEON)
  return __builtin_elementwise_fma(a, b, c);
#else
  return a * b + c;
#endif
}

// Number i of the four at `p`, to be multiplied with a vector. What Arm's instruction takes
// one of is a register that holds all four; x86's broadcast reads memory.
MLA_INLINE float mla_of_four(const float *p, int i) {
#if defined(MLA_NEON)
  float __attribute__((ext_vector_type(4))) four;
  memcpy(&four, p, sizeof four);
  return four[i];
#else
  return p[i];
#endif
}

// The number at `p`, likewise, of which no neighbour is read. Arm's load that fills a vector with
// it takes a multiplication's place for that.
MLA_INLINE float mla_of_one(const float *p) {
  float one = *p;
#if defined(MLA_NEON)
  __asm__("" : "+w"(one));
#endif
  return one;
}

// `p`, but not before `v` is known: what is loaded through it comes later in the
// instruction stream, so that loads are not gathered up front in registers that
// are needed elsewhere. Costs no instruction.
MLA_INLINE const float *mla_after(const float *p, mla_f32v v) {
#if defined(__x86_64__)
  __asm__ volatile("" : "+r"(p) : "x"(__builtin_shufflevector(v, v, 0, 1, 2, 3)));
#endif
  return p;
}

// Asks for the cache line at `p`, which may lie outside of any memory.
MLA_INLINE void mla_prefetch(const void *p) { __builtin_prefetch(p); }
// The same, but no nearer than the second cache: for what is not read at once.
MLA_INLINE void mla_prefetch_near(const void *p) { __builtin_prefetch(p, 0, 2); }
// As mla_prefetch, to be written.
MLA_INLINE void mla_prefetch_for_write(const void *p) { __builtin_prefetch(p, 1); }

// The larger of each lane; `b` where either is NaN.
MLA_INLINE mla_f32v mla_max(mla_f32v a, mla_f32v b) {
#if defined(__AVX512F__)
  return (mla_f32v)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (mla_f32v)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return a > b ? a : b;
#endif
}

// `a` where x >= y, else `b`.
MLA_INLINE mla_f32v mla_select_ge(mla_f32v x, mla_f32v y, mla_f32v a, mla_f32v b) {
  return x >= y ? a : b;
}
// `a` where x == y, else `b`.
MLA_INLINE mla_f32v mla_select_eq(mla_f32v x, mla_f32v y, mla_f32v a, mla_f32v b) {
  return x == y ? a : b;
}

// Lanes of the lower and of the upper half.
MLA_INLINE void mla_store_low_half(void *p, mla_f32v v) { memcpy(p, &v, sizeof v / 2); }
MLA_INLINE void mla_store_high_half(void *p, mla_f32v v) {
  memcpy(p, (const char *)&v + sizeof v / 2, sizeof v / 2);
}
MLA_INLINE mla_f32v mla_load_halves(const void *low, const void *high) {
  mla_f32v v;
  memcpy(&v, low, sizeof v / 2);
  memcpy((char *)&v + sizeof v / 2, high, sizeof v / 2);
  return v;
}

// Of each four lanes a, b and c, d: a0 c0 a1 c1 and a2 c2 a3 c3 (singles), a0 a1 c0 c1
// and a2 a3 c2 c3 (pairs). They never cross four lanes, so they are cheap.
#if MLA_LANES == 16
#define MLA_IN_FOURS(a, b, i, j, k, l)                                                        \
  __builtin_shufflevector(a, b, i, j, k, l, i + 4, j + 4, k + 4, l + 4, i + 8, j + 8, k + 8, \
                          l + 8, i + 12, j + 12, k + 12, l + 12)
#elif MLA_LANES == 8
#define MLA_IN_FOURS(a, b, i, j, k, l) \
  __builtin_shufflevector(a, b, i, j, k, l, i + 4, j + 4, k + 4, l + 4)
#else
#define MLA_IN_FOURS(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#endif
MLA_INLINE mla_f32v mla_zip_low(mla_f32v a, mla_f32v b) {
  return MLA_IN_FOURS(a, b, 0, MLA_LANES, 1, MLA_LANES + 1);
}
MLA_INLINE mla_f32v mla_zip_high(mla_f32v a, mla_f32v b) {
  return MLA_IN_FOURS(a, b, 2, MLA_LANES + 2, 3, MLA_LANES + 3);
}
MLA_INLINE mla_f32v mla_zip_low_pairs(mla_f32v a, mla_f32v b) {
  return MLA_IN_FOURS(a, b, 0, 1, MLA_LANES, MLA_LANES + 1);
}
MLA_INLINE mla_f32v mla_zip_high_pairs(mla_f32v a, mla_f32v b) {
  return MLA_IN_FOURS(a, b, 2, 3, MLA_LANES + 2, MLA_LANES + 3);
}

// Four lanes at `p`, the four `stride` bytes further on, and so forth.
MLA_INLINE mla_f32v mla_load_fours(const void *p, int64_t stride) {
#if MLA_LANES == 16
  const char *four = (const char *)p;
  __m512 v = _mm512_castps128_ps512(_mm_loadu_ps((const float *)four));
  v = _mm512_insertf32x4(v, _mm_loadu_ps((const float *)(four + stride)), 1);
  v = _mm512_insertf32x4(v, _mm_loadu_ps((const float *)(four + 2 * stride)), 2);
  return (mla_f32v)_mm512_insertf32x4(v, _mm_loadu_ps((const float *)(four + 3 * stride)), 3);
#elif defined(__AVX2__)
  const float *next = (const float *)((const char *)p + stride);
  return (mla_f32v)_mm256_loadu2_m128(next, (const float *)p);
#elif MLA_LANES == 8
  return mla_load_halves(p, (const char *)p + stride);
#else
  (void)stride;
  return mla_load_f32(p);
#endif
}

#if MLA_LANES == 16
// Fours as a whole: the even ones of a, then those of b; the odd ones likewise.
MLA_INLINE mla_f32v mla_even_fours(mla_f32v a, mla_f32v b) {
  return __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
}
MLA_INLINE mla_f32v mla_odd_fours(mla_f32v a, mla_f32v b) {
  return __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
}
#endif

#if defined(__AVX512F__) && defined(__AVX512DQ__)
// x - floor(x); 0 for infinities.
MLA_INLINE mla_f32v mla_fraction(mla_f32v x) {
  return (mla_f32v)_mm512_reduce_ps((__m512)x, _MM_FROUND_TO_NEG_INF);
}
// a * 2^floor(x); 0 where x is -inf.
MLA_INLINE mla_f32v mla_scale_by_power(mla_f32v a, mla_f32v x) {
  return (mla_f32v)_mm512_scalef_ps((__m512)a, (__m512)x);
}
#endif

// IEEE half precision.
#if defined(__AVX512F__)
MLA_INLINE mla_f32v mla_load_f16(const void *p) {
  return (mla_f32v)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
MLA_INLINE void mla_store_f16(void *p, mla_f32v v) {
  _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT));
}
#elif defined(__F16C__)
MLA_INLINE mla_f32v mla_load_f16(const void *p) {
  return (mla_f32v)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
MLA_INLINE void mla_store_f16(void *p, mla_f32v v) {
  _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
}
#elif defined(MLA_NEON)
typedef __fp16 mla_f16v __attribute__((ext_vector_type(MLA_LANES)));
MLA_INLINE mla_f32v mla_load_f16(const void *p) {
  mla_f16v v;
  memcpy(&v, p, sizeof v);
  return __builtin_convertvector(v, mla_f32v);
}
MLA_INLINE void mla_store_f16(void *p, mla_f32v v) {
  mla_f16v narrow = __builtin_convertvector(v, mla_f16v);
  memcpy(p, &narrow, sizeof narrow);
}
#endif

#if defined(__AVX512BW__)
// Two numbers of 16 bits a lane.
MLA_INLINE mla_u32v mla_load_u8_pairs(const void *p) {
  return (mla_u32v)_mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)p));
}
MLA_INLINE void mla_store_pairs(void *p, mla_u32v v) { memcpy(p, &v, sizeof v); }
// The lower halves of all lanes, and the same again.
MLA_INLINE mla_u32v mla_narrow_twice(mla_u32v v) {
  return (mla_u32v)_mm512_broadcast_i64x4(_mm512_cvtepi32_epi16((__m512i)v));
}
// Of 32 numbers those of the indices' lower five bits.
MLA_INLINE mla_u32v mla_look_up_pairs(mla_u32v numbers, mla_u32v indices) {
  return (mla_u32v)_mm512_permutexvar_epi16((__m512i)indices, (__m512i)numbers);
}
// a - b, 0 where that is negative.
MLA_INLINE mla_u32v mla_subtract_pairs(mla_u32v a, mla_u32v b) {
  return (mla_u32v)_mm512_subs_epu16((__m512i)a, (__m512i)b);
}
#endif

#if defined(__AVX512BF16__)
// acc + a.lo * b.lo + a.hi * b.hi for each pair of bf16; the scalar b pairs all.
MLA_INLINE mla_f32v mla_dot_bf16_pair(mla_f32v a, float b, mla_f32v acc) {
  return (mla_f32v)_mm512_dpbf16_ps((__m512)acc, (__m512bh)a, (__m512bh)_mm512_set1_ps(b));
}
// Rounds two vectors to bf16 and pairs them lane by lane: low in bits 0-15.
MLA_INLINE mla_f32v mla_pair_bf16(mla_f32v low, mla_f32v high) {
  const __m512i halves = (__m512i)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
  const __m512i lanes = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return (mla_f32v)_mm512_permutexvar_epi16(lanes, halves);
}
#endif

#if defined(MLA_NEON_BF16)
#define MLA_LOW(v) ((float32x4_t)__builtin_shufflevector(v, v, 0, 1, 2, 3))
#define MLA_HIGH(v) ((float32x4_t)__builtin_shufflevector(v, v, 4, 5, 6, 7))
MLA_INLINE mla_f32v mla_from_registers(float32x4_t low, float32x4_t high) {
  return (mla_f32v)__builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7);
}

// A register is two rows of four bf16, a vector two registers. Of two rows a and four
// columns b, to which acc adds, each register of acc holds two columns:
//   a0 b0, a0 b1, a1 b0, a1 b1   a0 b2, a0 b3, a1 b2, a1 b3
MLA_INLINE mla_f32v mla_dot_bf16_blocks(mla_u16v a, mla_f32v b, mla_f32v acc) {
  const bfloat16x8_t rows = (bfloat16x8_t)a;
  return mla_from_registers(vbfmmlaq_f32(MLA_LOW(acc), rows, (bfloat16x8_t)MLA_LOW(b)),
                            vbfmmlaq_f32(MLA_HIGH(acc), rows, (bfloat16x8_t)MLA_HIGH(b)));
}
// The larger of each lane; NaN where either is.
MLA_INLINE mla_f32v mla_max_or_nan(mla_f32v a, mla_f32v b) {
  return mla_from_registers(vmaxq_f32(MLA_LOW(a), MLA_LOW(b)), vmaxq_f32(MLA_HIGH(a), MLA_HIGH(b)));
}
// Of four quarters the inner two in each other's place: products of two rows and four columns
// become the one row, then the other, and back.
MLA_INLINE mla_f32v mla_swap_middle(mla_f32v v) {
  return __builtin_shufflevector(v, v, 0, 1, 4, 5, 2, 3, 6, 7);
}
MLA_INLINE mla_f32v mla_low_halves(mla_f32v a, mla_f32v b) {
  return __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11);
}
MLA_INLINE mla_f32v mla_high_halves(mla_f32v a, mla_f32v b) {
  return __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
}
// The upper row of each register from a, the lower one from b.
MLA_INLINE mla_f32v mla_rows_of(mla_f32v a, mla_f32v b) {
  return __builtin_shufflevector(a, b, 0, 1, 10, 11, 4, 5, 14, 15);
}
// Two numbers at p, as the rows of each register.
MLA_INLINE mla_f32v mla_rows_repeating(const float *p) {
  const float a = p[0], b = p[1];
  return (mla_f32v){a, a, b, b, a, a, b, b};
}
// The first n of each row's four bf16, zeros behind.
MLA_INLINE mla_f32v mla_first_of_rows(mla_f32v v, int64_t n) {
  typedef uint64_t four __attribute__((ext_vector_type(4)));
  const uint64_t mask = n >= 4 ? ~0ull : n <= 0 ? 0 : (1ull << (16 * n)) - 1;
  return (mla_f32v)((four)v & mask);
}
// Rounded to bf16, a register for the lower half of a row of a and one of b, and one for the
// upper halves.
MLA_INLINE mla_f32v mla_round_rows(mla_f32v a, mla_f32v b) {
  const bfloat16x8_t low = vcvtq_high_bf16_f32(vcvtq_low_bf16_f32(MLA_LOW(a)), MLA_LOW(b));
  const bfloat16x8_t high = vcvtq_high_bf16_f32(vcvtq_low_bf16_f32(MLA_HIGH(a)), MLA_HIGH(b));
  return mla_from_registers((float32x4_t)low, (float32x4_t)high);
}
// The columns of the four rows in registers a and b, each as a row of bf16.
MLA_INLINE mla_f32v mla_turn_rows(float32x4_t a, float32x4_t b) {
  const uint16x8_t even = vzip1q_u16((uint16x8_t)a, (uint16x8_t)b);
  const uint16x8_t odd = vzip2q_u16((uint16x8_t)a, (uint16x8_t)b);
  return mla_from_registers((float32x4_t)vzip1q_u16(even, odd), (float32x4_t)vzip2q_u16(even, odd));
}
// Of rows 0 and 1 in the registers of a, 2 and 3 in those of b.
MLA_INLINE mla_f32v mla_turn_low(mla_f32v a, mla_f32v b) {
  return mla_turn_rows(MLA_LOW(a), MLA_LOW(b));
}
MLA_INLINE mla_f32v mla_turn_high(mla_f32v a, mla_f32v b) {
  return mla_turn_rows(MLA_HIGH(a), MLA_HIGH(b));
}
#endif

// libm's, so that kernel modules need no import of their own.
MLA_INLINE float mla_log(float x) { return __builtin_logf(x); }
MLA_INLINE float mla_exp(float x) { return __builtin_expf(x); }

#endif  // MLA_SHIMS_VECTOR_H
