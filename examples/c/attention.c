/*
 * Attention in one call from C: two sequences that share the beginning of a cache.
 *
 * 32 heads of queries look at 8 heads of keys (grouped-query attention). Both sequences
 * begin with the same 40 tokens, which lie in the cache once, directly before what is each
 * one's own; either has 3 new tokens, the last of its keys. What plain loops make of it is
 * computed as well, and the largest difference printed.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "mla_prefill.h"

enum { HEADS = 32, KV_HEADS = 8, DIM = 64, NEW = 3, SHARED = 40, OWN = 9, KEYS = SHARED + 2 * OWN };

static float q[2 * NEW][HEADS][DIM], k[KEYS][KV_HEADS][DIM], v[KEYS][KV_HEADS][DIM];
static float out[2 * NEW][HEADS][DIM];

/** A dense tensor of fp32: [rows, heads, dim]. */
static mla_tensor view(float *data, int64_t rows, int64_t heads) {
  mla_tensor t = MLA_TENSOR_INIT;
  t.dtype = MLA_DTYPE_FLOAT32;
  t.data = data;
  t.ndim = 3;
  t.shape[0] = rows, t.shape[1] = heads, t.shape[2] = DIM;
  t.strides[0] = heads * DIM, t.strides[1] = DIM, t.strides[2] = 1;
  return t;
}

static void fill(float *data, size_t count) {
  for (size_t i = 0; i < count; ++i) data[i] = (float)rand() / (float)RAND_MAX - 0.5F;
}

/** The largest difference between a row of out and attention to keys [begin, end). */
static double difference(int row, int head, int begin, int end) {
  double weights[KEYS], sum = 0, largest = 0;
  const int kv_head = head / (HEADS / KV_HEADS);
  for (int j = begin; j < end; ++j) {
    double score = 0;
    for (int d = 0; d < DIM; ++d) score += (double)q[row][head][d] * (double)k[j][kv_head][d];
    sum += weights[j] = exp(score / sqrt(DIM));
  }
  for (int d = 0; d < DIM; ++d) {
    double expected = 0;
    for (int j = begin; j < end; ++j) expected += weights[j] / sum * (double)v[j][kv_head][d];
    largest = fmax(largest, fabs(expected - (double)out[row][head][d]));
  }
  return largest;
}

int main(void) {
  /* The first sequence's own tokens lie before the shared ones, the other's behind. */
  const int32_t cu_seqlens_q[] = {0, NEW, 2 * NEW};
  const int32_t k_begin[] = {0, OWN}, k_count[] = {OWN + SHARED, SHARED + OWN};
  mla_tensor tq = view(&q[0][0][0], 2 * NEW, HEADS), tk = view(&k[0][0][0], KEYS, KV_HEADS);
  mla_tensor tv = view(&v[0][0][0], KEYS, KV_HEADS), tout = view(&out[0][0][0], 2 * NEW, HEADS);
  mla_attention_args args = MLA_ATTENTION_ARGS_INIT;
  double largest = 0;

  fill(&q[0][0][0], sizeof(q) / sizeof(float));
  fill(&k[0][0][0], sizeof(k) / sizeof(float));
  fill(&v[0][0][0], sizeof(v) / sizeof(float));
  /* --8<-- [start:call] */
  args.q = &tq, args.k = &tk, args.v = &tv, args.out = &tout;
  args.scale = 1 / sqrt(DIM);
  args.causal = MLA_CAUSAL_END;
  args.num_requests = 2;
  args.cu_seqlens_q = cu_seqlens_q;
  args.k_begin = k_begin;
  args.k_count = k_count;
  if (mla_attention(&args)) {
    fprintf(stderr, "%s\n", mla_last_error_message());
    return 1;
  }
  /* --8<-- [end:call] */
  for (int row = 0; row < 2 * NEW; ++row) {
    const int sequence = row / NEW, unseen = NEW - 1 - row % NEW;
    for (int head = 0; head < HEADS; ++head) {
      const int end = k_begin[sequence] + k_count[sequence] - unseen;
      largest = fmax(largest, difference(row, head, k_begin[sequence], end));
    }
  }
  printf("two sequences on one cache: off by at most %.1e\n", largest);
  return largest < 1e-5 ? 0 : 1;
}
