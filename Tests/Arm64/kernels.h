// What the tests of kernels share: random numbers in memory full of NaN, and a result's line.
#ifndef TESTS_ARM64_KERNELS_H
#define TESTS_ARM64_KERNELS_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mla_kernel_abi.h"

void check(const char *name, int ok, double worst);

// Of rows alone: what combines, merges and converts them.
void check_rows(const mla_kernel_table *table);

// Attention to rows that lie anywhere, as to those that the same table packs.
void check_selected(const mla_rows_kernel *kernel, const mla_attention_kernel *dense, int32_t format,
                    const char *name);

// A token's heads against keys.
void check_index(const mla_index_kernel *kernel, int32_t format, const char *name);

static inline uint32_t next(void) {
  static uint64_t state = 1;
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(state >> 33);
}
static inline int between(int low, int high) { return low + (int)(next() % (uint32_t)(high - low + 1)); }
static inline double uniform(void) { return (double)next() / 1073741824.0 - 1; }

// Elements as the compiler converts them.
static inline int size_of(int format) { return format == MLA_FORMAT_FLOAT32 ? 4 : 2; }

static inline double get(const void *p, int64_t i, int format) {
  float f;
  if (format == MLA_FORMAT_FLOAT32) return ((const float *)p)[i];
  if (format == MLA_FORMAT_FLOAT16) return (double)((const __fp16 *)p)[i];
  uint32_t bits = (uint32_t)((const uint16_t *)p)[i] << 16;
  memcpy(&f, &bits, sizeof f);
  return f;
}

static inline void *take(int64_t bytes) {
  int64_t rounded = (bytes + 63) / 64 * 64 + 64;
  void *p = aligned_alloc(64, (size_t)rounded);
  memset(p, 0xff, (size_t)rounded);
  return p;
}

static inline void *random_rows(int64_t count, int format) {
  char *p = take(count * size_of(format));
  for (int64_t i = 0; i < count; i++) {
    float f = (float)uniform();
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if (format == MLA_FORMAT_FLOAT32) ((float *)p)[i] = f;
    if (format == MLA_FORMAT_FLOAT16) ((__fp16 *)p)[i] = (__fp16)f;
    if (format == MLA_FORMAT_BFLOAT16) ((uint16_t *)p)[i] = (uint16_t)(bits >> 16);
  }
  return p;
}

static inline double larger(double a, double b) { return b <= a ? a : b; }

#endif  // TESTS_ARM64_KERNELS_H
