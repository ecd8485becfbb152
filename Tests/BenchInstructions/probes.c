#include <immintrin.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "bench_instructions.h"

double bench_now(int32_t clock) {
  struct timespec t;
  clock_gettime(clock == BENCH_CLOCK_WALL ? CLOCK_MONOTONIC : CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// Independent chains that hide the latency of any of the instructions, as many as
// the registers hold beside two operands: vdpbf16ps wants more than 12.
enum { CHAINS = 12, WIDE_CHAINS = 24, STEPS = 2000 };

// Of a constant number of rounds, so that chains are registers.
#ifdef __clang__
#define UNROLLED _Pragma("clang loop unroll(full)")
#else
#define UNROLLED _Pragma("GCC unroll 24")
#endif

// One probe: STEPS rounds of that many instructions on registers. The empty asm
// keeps the compiler from folding or spilling the chains, and from multiplying
// once for all of them where that is an instruction of its own.
#define VECTOR_PROBE(name, isa, vector, zero, chains, step)             \
  __attribute__((target(isa), noinline)) static void name(void) {       \
    vector c[chains], x = zero, y = zero;                               \
    for (int j = 0; j < chains; j++) c[j] = zero;                       \
    for (int i = 0; i < STEPS; i++) {                                   \
      UNROLLED for (int j = 0; j < chains; j++) {                       \
        __asm__ volatile("" : "+v"(x), "+v"(y));                        \
        c[j] = step(c[j]);                                              \
      }                                                                 \
    }                                                                   \
    for (int j = 0; j < chains; j++) __asm__ volatile("" ::"v"(c[j]));  \
  }

#define SSE_STEP(c) _mm_add_ps(c, _mm_mul_ps(x, y))
#define AVX2_STEP(c) _mm256_fmadd_ps(x, y, c)
#define AVX512_STEP(c) _mm512_fmadd_ps(x, y, c)
#define BF16_STEP(c) _mm512_dpbf16_ps(c, (__m512bh)x, (__m512bh)y)

VECTOR_PROBE(sse_mul_add, "sse2", __m128, _mm_setzero_ps(), CHAINS, SSE_STEP)
VECTOR_PROBE(avx2_fma, "avx2,fma", __m256, _mm256_setzero_ps(), CHAINS, AVX2_STEP)
VECTOR_PROBE(avx512_fma, "avx512f", __m512, _mm512_setzero_ps(), WIDE_CHAINS, AVX512_STEP)
VECTOR_PROBE(avx512_bf16, "avx512f,avx512bf16", __m512, _mm512_setzero_ps(), WIDE_CHAINS, BF16_STEP)

typedef struct tile_config {
  uint8_t palette, start_row, reserved[14];
  uint16_t column_bytes[16];
  uint8_t rows[16];
} tile_config;

// Tiles 0 to 3 accumulate, 4 to 7 are operands: a 2x2 step.
__attribute__((target("amx-tile,amx-bf16"))) static int amx_begin(void) {
  enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
  if (syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) != 0) return 0;
  tile_config config;
  memset(&config, 0, sizeof config);
  config.palette = 1;
  for (int tile = 0; tile < 8; tile++) config.rows[tile] = 16, config.column_bytes[tile] = 64;
  _tile_loadconfig(&config);
  // Statements each: gcc's are asm.
  _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
  _tile_zero(4); _tile_zero(5); _tile_zero(6); _tile_zero(7);
  return 1;
}

__attribute__((target("amx-tile,amx-bf16"), noinline)) static void amx_bf16(void) {
  for (int i = 0; i < STEPS; i++) {
    _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7);
  }
}

__attribute__((target("amx-tile"))) static void amx_end(void) { _tile_release(); }

static double rate(void (*burst)(void), double flops_per_step, int32_t clock, double seconds) {
  double begin = bench_now(clock), end;
  double flops = 0;
  do {
    burst();
    flops += flops_per_step * STEPS;
    end = bench_now(clock);
  } while (end - begin < seconds);
  return flops / (end - begin);
}

double bench_probe(int32_t probe, int32_t clock, double seconds) {
  switch (probe) {
    case BENCH_PROBE_SSE_MUL_ADD:
      return rate(sse_mul_add, CHAINS * 4 * 2, clock, seconds);
    case BENCH_PROBE_AVX2_FMA:
      return rate(avx2_fma, CHAINS * 8 * 2, clock, seconds);
    case BENCH_PROBE_AVX512_FMA:
      return rate(avx512_fma, WIDE_CHAINS * 16 * 2, clock, seconds);
    case BENCH_PROBE_AVX512_BF16:
      return rate(avx512_bf16, WIDE_CHAINS * 32 * 2, clock, seconds);
    case BENCH_PROBE_AMX_BF16: {
      if (!amx_begin()) return 0;
      double result = rate(amx_bf16, 4.0 * 16 * 16 * 32 * 2, clock, seconds);
      amx_end();
      return result;
    }
    default:
      return 0;
  }
}

// 32-byte loads, as many chains as hide an operation's latency.
__attribute__((target("avx2"), noinline)) static void read_once(const __m256i *p, int64_t vectors) {
  enum { READ_CHAINS = 8 };
  __m256i sums[READ_CHAINS] = {0};
  for (int64_t i = 0; i < vectors; i += READ_CHAINS) {
    UNROLLED for (int j = 0; j < READ_CHAINS; j++) {
      sums[j] = _mm256_or_si256(sums[j], p[i + j]);
    }
  }
  for (int j = 0; j < READ_CHAINS; j++) __asm__ volatile("" ::"x"(sums[j]));
}

double bench_read_rate(const void *buffer, int64_t bytes, int32_t clock, double seconds) {
  read_once(buffer, bytes / 32);
  double begin = bench_now(clock), end;
  int64_t passes = 0;
  // Many passes between two looks at the clock, which is slower than a small cache's.
  const int64_t batch = 1 + (1 << 20) / bytes;
  do {
    for (int64_t i = 0; i < batch; i++) read_once(buffer, bytes / 32);
    passes += batch;
    end = bench_now(clock);
  } while (end - begin < seconds);
  return (double)bytes * (double)passes / (end - begin);
}
