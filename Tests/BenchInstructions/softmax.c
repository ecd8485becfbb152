#include "bench_instructions.h"

// Sixteen lanes whatever the CPU has: the compiler cuts them to its registers.
typedef float lanes __attribute__((ext_vector_type(16), aligned(4)));
typedef int32_t bits __attribute__((ext_vector_type(16), aligned(4)));

// One copy per instruction set, chosen when the program is loaded, so that the
// baseline is not held back by its softmax.
#define EVERY_CPU __attribute__((target_clones("avx512f", "avx2", "default")))

// x := exp(x) for x <= 0: 2^n times a polynomial of degree 5.
__attribute__((always_inline)) static inline void exponential(lanes *x) {
  lanes t = *x * 1.44269504f;
  t = t < -126.0f ? (lanes)(-126.0f) : t;
  lanes n = (t + 12582912.0f) - 12582912.0f;
  lanes f = t - n;
  lanes p = 1.3398874e-3f * f + 9.6180e-3f;
  p = p * f + 5.5503324e-2f;
  p = p * f + 2.4022651e-1f;
  p = p * f + 6.9314718e-1f;
  p = p * f + 1.0f;
  bits e = (__builtin_convertvector(n, bits) + 127) << 23;
  lanes power;
  __builtin_memcpy(&power, &e, sizeof power);
  *x = p * power;
}

EVERY_CPU
void bench_causal_softmax(float *scores, int64_t rows, int64_t columns, int64_t visible,
                          float scale) {
  for (int64_t i = 0; i < rows; i++) {
    float *row = scores + i * columns;
    int64_t count = visible + i < columns ? visible + i : columns;
    // Whole vectors: the columns behind the visible ones weigh nothing.
    int64_t whole = (count + 15) / 16 * 16 < columns ? (count + 15) / 16 * 16 : columns;
    for (int64_t j = count; j < columns; j++) row[j] = j < whole ? -3e38f : 0;
    lanes highest = (lanes)(-3e38f);
    int64_t vectors = whole / 16 * 16;
    for (int64_t j = 0; j < vectors; j += 16) {
      lanes x = *(lanes *)(row + j);
      highest = x > highest ? x : highest;
    }
    float top = -3e38f;
    for (int lane = 0; lane < 16; lane++) top = highest[lane] > top ? highest[lane] : top;
    for (int64_t j = vectors; j < whole; j++) top = row[j] > top ? row[j] : top;
    lanes sums = (lanes)(0.0f);
    for (int64_t j = 0; j < vectors; j += 16) {
      lanes x = (*(lanes *)(row + j) - top) * scale;
      exponential(&x);
      *(lanes *)(row + j) = x;
      sums += x;
    }
    float sum = 0;
    for (int lane = 0; lane < 16; lane++) sum += sums[lane];
    for (int64_t j = vectors; j < whole; j++) {
      lanes x = (lanes)((row[j] - top) * scale);
      exponential(&x);
      row[j] = x[0];
      sum += row[j];
    }
    float inverse = 1 / sum;
    for (int64_t j = 0; j < count; j++) row[j] *= inverse;
    for (int64_t j = count; j < whole; j++) row[j] = 0;
  }
}
