// What a benchmark needs and Swift has no spelling for.
#ifndef BENCH_INSTRUCTIONS_H
#define BENCH_INSTRUCTIONS_H

#include <stdint.h>

// Instructions whose rate bounds a kernel.
enum {
  BENCH_PROBE_SSE_MUL_ADD = 1,
  BENCH_PROBE_AVX2_FMA = 2,
  BENCH_PROBE_AVX512_FMA = 3,
  BENCH_PROBE_AVX512_BF16 = 4,
  BENCH_PROBE_AMX_BF16 = 5
};

enum {
  BENCH_CLOCK_WALL = 1,
  BENCH_CLOCK_THREAD = 2  // processor time of the calling thread: its own, however busy the machine
};

// Seconds on that clock.
double bench_now(int32_t clock);

// FLOP/s of the calling thread while it issues nothing but the instruction, on
// registers, for about `seconds` of the clock; 0 where the process may not use it. The
// caller makes sure that the CPU has it.
double bench_probe(int32_t probe, int32_t clock, double seconds);

// Bytes per second that the calling thread reads of a buffer, from its beginning to its
// end again and again, for about `seconds` of the clock. `bytes` is a multiple of 256,
// `buffer` one of 32; the caller makes sure that the CPU has AVX2.
double bench_read_rate(const void *buffer, int64_t bytes, int32_t clock, double seconds);

// Causal softmax of a block of score rows, in place: row i keeps its first
// `visible + i` columns, the others become 0.
void bench_causal_softmax(float *scores, int64_t rows, int64_t columns, int64_t visible, float scale);

#endif  // BENCH_INSTRUCTIONS_H
