/*
 * Work enough for a profile.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>

#include "mla_prefill.h"

enum { ROWS = 512, HEADS = 4, DIM = 128, RUNS = 40 };

static mla_tensor tensor(void) {
  mla_tensor t = MLA_TENSOR_INIT;
  t.dtype = MLA_DTYPE_FLOAT32;
  t.data = calloc((size_t)ROWS * HEADS * DIM, sizeof(float));
  t.ndim = 3;
  t.shape[0] = ROWS, t.shape[1] = HEADS, t.shape[2] = DIM;
  t.strides[0] = HEADS * DIM, t.strides[1] = DIM, t.strides[2] = 1;
  return t;
}

int main(void) {
  mla_attention_args args = MLA_ATTENTION_ARGS_INIT;
  const mla_tensor q = tensor(), k = tensor(), v = tensor(), out = tensor();
  args.scale = 0.1;
  args.q = &q, args.k = &k, args.v = &v, args.out = &out;
  for (int run = 0; run < RUNS; run++) {
    if (mla_attention(&args) != MLA_OK) {
      fprintf(stderr, "%s\n", mla_last_error_message());
      return 1;
    }
  }
  return 0;
}
