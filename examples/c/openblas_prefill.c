/*
 * A backend of your own against the library's: each runs the same batches, and the largest
 * difference is printed.
 *
 *   openblas_prefill [dsv2_chunked.safetensors]
 *
 * First the recorded step of prefill.c, in bf16; then a batch of fp32 with what a recording
 * happens not to have: a request without tokens, one without context, values that are columns
 * of wider rows, more keys than a block.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mla_prefill.h"
#include "openblas_backend.h"
#include "safetensors.h"

#define MAX_LSE_DIFFERENCE 2e-5

/** A run of new tokens, or of a chunk of context where there is one. */
typedef struct problem {
  const char *name;
  double scale;
  int32_t rope;
  mla_tensor q, k, v;
  int32_t num_requests;
  const int32_t *query_start_loc;
  /** NULL: new tokens. */
  const int32_t *cu_seq_lens;
  /** Largest difference of out. */
  double tolerance;
} problem;

/** Stops the example where a call fails; an engine would hand the error on. */
static void check(mla_status status, const char *what) {
  if (status == MLA_OK) return;
  fprintf(stderr, "%s: %s: %s\n", what, mla_status_name(status), mla_last_error_message());
  exit(1);
}

static void *allocate(size_t bytes) {
  void *memory = malloc(bytes);
  if (memory) return memory;
  fprintf(stderr, "out of memory\n");
  exit(1);
}

/** Dense rows of fp32. */
static mla_tensor view(float *data, int32_t ndim, int64_t a, int64_t b, int64_t c) {
  mla_tensor made = MLA_TENSOR_INIT;
  made.dtype = MLA_DTYPE_FLOAT32;
  made.data = data;
  made.ndim = ndim;
  made.shape[0] = a, made.shape[1] = b, made.shape[2] = c;
  made.strides[0] = b * c, made.strides[1] = c, made.strides[2] = 1;
  return made;
}

static void run_chunk(const mla_backend *backend, const problem *p, const mla_tensor *out,
                      const mla_tensor *lse) {
  mla_context_chunk chunk = MLA_CONTEXT_CHUNK_INIT;
  mla_context_chunk_args args = MLA_CONTEXT_CHUNK_ARGS_INIT;
  chunk.num_requests = p->num_requests;
  chunk.query_start_loc = p->query_start_loc;
  chunk.cu_seq_lens = p->cu_seq_lens;
  args.chunk = &chunk;
  args.q = &p->q, args.k = &p->k, args.v = &p->v;
  args.out = out, args.lse = lse;
  check(mla_run_prefill_context_chunk(backend, &args), "mla_run_prefill_context_chunk");
}

/** Runs a problem on the backend of that name; out is [tokens, heads, v_dim], lse [heads,
    tokens]. */
static void run(const char *name, const problem *p, float *out, float *lse) {
  const int64_t tokens = p->q.shape[0], heads = p->q.shape[1], v_dim = p->v.shape[2];
  mla_backend_config config = MLA_BACKEND_CONFIG_INIT;
  mla_prefill_metadata metadata = MLA_PREFILL_METADATA_INIT;
  mla_new_tokens_args args = MLA_NEW_TOKENS_ARGS_INIT;
  const mla_tensor out_view = view(out, 3, tokens, heads, v_dim);
  const mla_tensor lse_view = view(lse, 2, heads, tokens, 1);
  mla_backend *backend;
  config.num_heads = (int32_t)heads;
  config.scale = p->scale;
  config.kv_lora_rank = 512;
  config.qk_nope_head_dim = (int32_t)p->q.shape[2] - p->rope;
  config.qk_rope_head_dim = p->rope;
  config.v_head_dim = (int32_t)v_dim;
  metadata.num_requests = p->num_requests;
  metadata.query_start_loc = p->query_start_loc;
  check(mla_backend_create(name, &config, &backend), "mla_backend_create");
  check(mla_prepare_metadata(backend, &metadata), "mla_prepare_metadata");
  if (p->cu_seq_lens) {
    run_chunk(backend, p, &out_view, &lse_view);
  } else {
    args.q = &p->q, args.k = &p->k, args.v = &p->v;
    args.out = &out_view, args.lse = &lse_view;
    check(mla_run_prefill_new_tokens(backend, &args), "mla_run_prefill_new_tokens");
  }
  mla_backend_destroy(backend);
}

/** Largest difference; infinity where one is NaN, or infinite and the other is not. */
static double difference(const float *a, const float *b, size_t count) {
  double largest = 0;
  size_t i;
  for (i = 0; i < count; ++i) {
    const double is = a[i] == b[i] ? 0.0 : fabs((double)a[i] - (double)b[i]);
    if (!(is <= largest)) largest = is == is ? is : INFINITY;
  }
  return largest;
}

/** Prints how far the two backends are from each other; 1 if too far. */
static int compare(const char *mine, const char *library, const problem *p) {
  const size_t lses = (size_t)(p->q.shape[0] * p->q.shape[1]);
  const size_t outs = lses * (size_t)p->v.shape[2];
  float *out[2], *lse[2];
  double out_is, lse_is;
  int i, good;
  for (i = 0; i < 2; ++i) {
    out[i] = allocate(outs * sizeof(float));
    lse[i] = allocate(lses * sizeof(float));
    run(i == 0 ? mine : library, p, out[i], lse[i]);
  }
  out_is = difference(out[0], out[1], outs);
  lse_is = difference(lse[0], lse[1], lses);
  good = out_is <= p->tolerance && lse_is <= MAX_LSE_DIFFERENCE;
  printf("  %-22s out %.1e (at most %.0e)   lse %.1e (at most %.0e)%s\n", p->name, out_is,
         p->tolerance, lse_is, MAX_LSE_DIFFERENCE, good ? "" : "   TOO FAR");
  for (i = 0; i < 2; ++i) {
    free(out[i]);
    free(lse[i]);
  }
  return !good;
}

/* --- recorded ----------------------------------------------------------- */

static mla_tensor recorded(const st_file *file, const char *name) {
  mla_tensor found;
  if (st_tensor(file, name, &found) == 0) return found;
  fprintf(stderr, "the recording lacks %s\n", name);
  exit(1);
}

static const int32_t *offsets(const st_file *file, const char *name, int32_t *requests) {
  const int32_t *found = st_int32(file, name, requests);
  --*requests;
  if (found) return found;
  fprintf(stderr, "the recording lacks %s\n", name);
  exit(1);
}

static int recorded_step(const char *mine, const char *library, const char *path) {
  problem p = {"recorded, new tokens", 0, 64, MLA_TENSOR_INIT, MLA_TENSOR_INIT, MLA_TENSOR_INIT,
               0, NULL, NULL, 1e-2};
  st_file file;
  int bad;
  if (st_open(&file, path) != 0) {
    fprintf(stderr, "%s: not a readable safetensors file\n", path);
    return 1;
  }
  p.scale = st_number(&file, "scale");
  p.q = recorded(&file, "q");
  p.k = recorded(&file, "k_new");
  p.v = recorded(&file, "v_new");
  p.query_start_loc = offsets(&file, "query_start_loc", &p.num_requests);
  bad = compare(mine, library, &p);
  p.name = "recorded, context";
  p.query_start_loc = offsets(&file, "chunk0_query_start_loc", &p.num_requests);
  p.cu_seq_lens = offsets(&file, "chunk0_cu_seq_lens", &p.num_requests);
  p.q.shape[0] = p.query_start_loc[p.num_requests];
  p.k = recorded(&file, "chunk0_k");
  p.v = recorded(&file, "chunk0_v");
  bad += compare(mine, library, &p);
  st_close(&file);
  return bad;
}

/* --- made up ------------------------------------------------------------ */

enum { heads = 3, nope = 40, rope = 16, v_dim = 24, tokens = 1650, context_tokens = 1405 };

static float *noise(size_t count) {
  static uint32_t state = 1;
  float *values = allocate(count * sizeof(float));
  size_t i;
  for (i = 0; i < count; ++i) {
    state = state * 1664525U + 1013904223U;
    values[i] = (float)(state >> 8) / 8388608.0F - 1.0F;
  }
  return values;
}

static int made_up_batch(const char *mine, const char *library) {
  static const int32_t query_start_loc[] = {0, 300, 300, 301, tokens};
  static const int32_t cu_seq_lens[] = {0, 1400, 1400, 1400, context_tokens};
  /* Of each row of keys and values the last v_dim columns are the values. */
  const int64_t wide = nope + v_dim;
  float *q = noise(tokens * heads * (nope + rope)), *k = noise(tokens * heads * (nope + rope));
  float *kv = noise(tokens * heads * (nope + v_dim));
  problem p = {"fp32, new tokens", 0.3, rope, MLA_TENSOR_INIT, MLA_TENSOR_INIT, MLA_TENSOR_INIT,
               4, query_start_loc, NULL, 2e-5};
  int bad;
  p.q = view(q, 3, tokens, heads, nope + rope);
  p.k = view(k, 3, tokens, heads, nope + rope);
  p.v = view(kv + nope, 3, tokens, heads, wide);
  p.v.shape[2] = v_dim;
  bad = compare(mine, library, &p);
  p.name = "fp32, context";
  p.cu_seq_lens = cu_seq_lens;
  p.k.shape[0] = p.v.shape[0] = context_tokens;
  bad += compare(mine, library, &p);
  free(q);
  free(k);
  free(kv);
  return bad;
}

/* --- which models it serves --------------------------------------------- */

static void print_reason(void *reasons, const char *reason) {
  ++*(int *)reasons;
  printf("  fp16 is not served: %s\n", reason);
}

/** Reasons against models of that dtype. */
static int reasons_against(const char *name, int32_t dtype) {
  mla_selector_config config = MLA_SELECTOR_CONFIG_INIT;
  int reasons = 0;
  config.dtype = dtype;
  config.qk_nope_head_dim = 128;
  config.qk_rope_head_dim = 64;
  config.v_head_dim = 128;
  check(mla_validate_configuration(name, &config, print_reason, &reasons),
        "mla_validate_configuration");
  return reasons;
}

int main(int argc, char **argv) {
  const char *path = argc > 1 ? argv[1] : "Tests/Data/dsv2_chunked.safetensors";
  const char *mine = "OPENBLAS", *library = "FLASH_ATTN";
  int bad = 0;
  check(openblas_backend_register(mine), "openblas_backend_register");
  printf("%s against %s, largest differences:\n", mine, library);
  bad += recorded_step(mine, library, path);
  bad += made_up_batch(mine, library);
  bad += reasons_against(mine, MLA_DTYPE_BFLOAT16) != 0;
  bad += reasons_against(mine, MLA_DTYPE_FLOAT32) != 0;
  bad += reasons_against(mine, MLA_DTYPE_FLOAT16) != 1;
  check(mla_remove_backend(mine), "mla_remove_backend");
  return bad == 0 ? 0 : 1;
}
