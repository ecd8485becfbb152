/*
 * MLA prefill from C: what an engine does in one step for one layer.
 *
 * A request's new tokens attend to themselves (causal) and, chunk by chunk, to
 * the context that was cached before; the partial results are merged. Input and
 * expected results were recorded from vLLM; the errors against them are printed.
 *
 *   prefill [dsv2_chunked.safetensors]
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mla_prefill.h"
#include "safetensors.h"

#define MAX_OUT_ERROR 4e-3
#define MAX_LSE_ERROR 1e-3

/** Stops the example where a call fails; an engine would hand the error on. */
static void check(mla_status status, const char *what) {
  if (status == MLA_OK) return;
  fprintf(stderr, "%s: %s: %s\n", what, mla_status_name(status), mla_last_error_message());
  exit(1);
}

static mla_tensor recorded(const st_file *file, const char *name) {
  mla_tensor view;
  if (st_tensor(file, name, &view) != 0) {
    fprintf(stderr, "the recording lacks %s\n", name);
    exit(1);
  }
  return view;
}

static const int32_t *offsets(const st_file *file, const char *name, int32_t *requests) {
  const int32_t *values = st_int32(file, name, requests);
  if (!values) {
    fprintf(stderr, "the recording lacks %s\n", name);
    exit(1);
  }
  --*requests;
  return values;
}

static size_t element_size(const mla_tensor *view) {
  return view->dtype == MLA_DTYPE_FLOAT32 ? 4 : 2;
}

/** A dense tensor of the same shape and dtype; freed by the caller. */
static mla_tensor like(const mla_tensor *view) {
  mla_tensor made = *view;
  size_t count = 1;
  int32_t i;
  for (i = 0; i < view->ndim; ++i) count *= (size_t)view->shape[i];
  made.data = calloc(count, element_size(view));
  if (!made.data) {
    fprintf(stderr, "out of memory\n");
    exit(1);
  }
  return made;
}

/** Entries [begin, end) of a dimension, without a copy. */
static mla_tensor narrow(const mla_tensor *view, int32_t dimension, int64_t begin, int64_t end) {
  mla_tensor part = *view;
  const size_t offset = (size_t)(begin * view->strides[dimension]);
  part.data = (unsigned char *)view->data + offset * element_size(view);
  part.shape[dimension] = end - begin;
  return part;
}

static double element(const mla_tensor *view, int64_t offset) {
  float value;
  if (view->dtype == MLA_DTYPE_FLOAT32) {
    value = ((const float *)view->data)[offset];
  } else { /* bf16: the upper half of a float */
    const uint32_t bits = (uint32_t)((const uint16_t *)view->data)[offset] << 16;
    memcpy(&value, &bits, sizeof(value));
  }
  return (double)value;
}

/** Root of sum((out - expected)^2) / sum(expected^2). */
static double out_error(const mla_tensor *out, const mla_tensor *expected) {
  double difference = 0, norm = 0;
  int64_t token, head, i;
  for (token = 0; token < out->shape[0]; ++token) {
    for (head = 0; head < out->shape[1]; ++head) {
      for (i = 0; i < out->shape[2]; ++i) {
        const double a = element(out, token * out->strides[0] + head * out->strides[1] + i);
        const double b =
            element(expected, token * expected->strides[0] + head * expected->strides[1] + i);
        difference += (a - b) * (a - b);
        norm += b * b;
      }
    }
  }
  return sqrt(difference / norm);
}

/** Largest difference. */
static double lse_error(const mla_tensor *lse, const mla_tensor *expected) {
  double largest = 0;
  int64_t head, token;
  for (head = 0; head < lse->shape[0]; ++head) {
    for (token = 0; token < lse->shape[1]; ++token) {
      const double a = element(lse, head * lse->strides[0] + token);
      const double b = element(expected, head * expected->strides[0] + token);
      const double difference = fabs(a - b);
      if (!(difference <= largest)) largest = difference;
    }
  }
  return largest;
}

/** Prints how far a result is from the recording; 1 if it is too far. */
static int report(const st_file *file, const char *name, const char *out_name,
                  const char *lse_name, const mla_tensor *out, const mla_tensor *lse) {
  mla_tensor expected_out = recorded(file, out_name);
  mla_tensor expected_lse = recorded(file, lse_name);
  double out_is, lse_is;
  int good;
  expected_out = narrow(&expected_out, 0, 0, out->shape[0]);
  expected_lse = narrow(&expected_lse, 1, 0, lse->shape[1]);
  out_is = out_error(out, &expected_out);
  lse_is = lse_error(lse, &expected_lse);
  good = out_is <= MAX_OUT_ERROR && lse_is <= MAX_LSE_ERROR;
  printf("  %-9s out %.2e (at most %.0e)   lse %.2e (at most %.0e)%s\n", name, out_is,
         MAX_OUT_ERROR, lse_is, MAX_LSE_ERROR, good ? "" : "   TOO FAR");
  return !good;
}

static const char *select_backend(const mla_tensor *q, const mla_tensor *v, int32_t rope) {
  mla_selector_config config = MLA_SELECTOR_CONFIG_INIT;
  const char *name;
  config.dtype = q->dtype;
  config.qk_nope_head_dim = (int32_t)q->shape[2] - rope;
  config.qk_rope_head_dim = rope;
  config.v_head_dim = (int32_t)v->shape[2];
  check(mla_select_backend(&config, &name), "mla_select_backend");
  return name;
}

static mla_backend *create_backend(const st_file *file, const char *name, const mla_tensor *q,
                                   const mla_tensor *v, int32_t rope) {
  mla_backend_config config = MLA_BACKEND_CONFIG_INIT;
  mla_backend *backend;
  config.num_heads = (int32_t)q->shape[1];
  config.scale = st_number(file, "scale");
  config.kv_lora_rank = 512;
  config.qk_nope_head_dim = (int32_t)q->shape[2] - rope;
  config.qk_rope_head_dim = rope;
  config.v_head_dim = (int32_t)v->shape[2];
  check(mla_backend_create(name, &config, &backend), "mla_backend_create");
  return backend;
}

static mla_context_chunk recorded_chunk(const st_file *file, int32_t index) {
  mla_context_chunk chunk = MLA_CONTEXT_CHUNK_INIT;
  char name[64];
  chunk.index = index;
  snprintf(name, sizeof(name), "chunk%d_query_start_loc", (int)index);
  chunk.query_start_loc = offsets(file, name, &chunk.num_requests);
  snprintf(name, sizeof(name), "chunk%d_cu_seq_lens", (int)index);
  chunk.cu_seq_lens = offsets(file, name, &chunk.num_requests);
  return chunk;
}

static void run_chunk(const mla_backend *backend, const st_file *file,
                      const mla_context_chunk *chunk, const mla_tensor *q, const mla_tensor *out,
                      const mla_tensor *lse) {
  mla_context_chunk_args args = MLA_CONTEXT_CHUNK_ARGS_INIT;
  mla_tensor k, v;
  char name[64];
  snprintf(name, sizeof(name), "chunk%d_k", (int)chunk->index);
  k = recorded(file, name);
  snprintf(name, sizeof(name), "chunk%d_v", (int)chunk->index);
  v = recorded(file, name);
  args.chunk = chunk;
  args.q = q;
  args.k = &k;
  args.v = &v;
  args.out = out;
  args.lse = lse;
  check(mla_run_prefill_context_chunk(backend, &args), "mla_run_prefill_context_chunk");
}

static void merge(const mla_tensor *out, const mla_tensor *lse, const mla_tensor *prefix,
                  const mla_tensor *prefix_lse, const mla_tensor *suffix,
                  const mla_tensor *suffix_lse) {
  mla_merge_args args = MLA_MERGE_ARGS_INIT;
  args.output = out;
  args.output_lse = lse;
  args.prefix_output = prefix;
  args.prefix_lse = prefix_lse;
  args.suffix_output = suffix;
  args.suffix_lse = suffix_lse;
  check(mla_merge_attn_states(&args), "mla_merge_attn_states");
}

/** New tokens, two context chunks, the merges; how many results are too far. */
static int run_step(mla_backend *backend, const st_file *file) {
  mla_tensor q = recorded(file, "q"), k = recorded(file, "k_new"), v = recorded(file, "v_new");
  mla_tensor expected_lse = recorded(file, "lse");
  mla_tensor out = like(&v), lse = like(&expected_lse);
  mla_tensor first_out = like(&v), first_lse = like(&expected_lse);
  mla_tensor second_out = like(&v), second_lse = like(&expected_lse);
  mla_context_chunk chunks[2];
  mla_prefill_metadata metadata = MLA_PREFILL_METADATA_INIT;
  mla_new_tokens_args args = MLA_NEW_TOKENS_ARGS_INIT;
  mla_tensor rows_q, rows_out, rows_lse, chunk_out[2], chunk_lse[2];
  int64_t rows;
  int bad = 0;

  chunks[0] = recorded_chunk(file, 0);
  chunks[1] = recorded_chunk(file, 1);
  metadata.query_start_loc = offsets(file, "query_start_loc", &metadata.num_requests);
  metadata.chunks = chunks;
  metadata.num_chunks = 2;
  check(mla_prepare_metadata(backend, &metadata), "mla_prepare_metadata");

  args.q = &q;
  args.k = &k;
  args.v = &v;
  args.out = &out;
  args.lse = &lse;
  check(mla_run_prefill_new_tokens(backend, &args), "mla_run_prefill_new_tokens");
  bad += report(file, "suffix", "suffix_out", "suffix_lse", &out, &lse);

  /* Both chunks belong to the same first requests of the batch. */
  rows = chunks[0].query_start_loc[chunks[0].num_requests];
  rows_q = narrow(&q, 0, 0, rows);
  chunk_out[0] = narrow(&first_out, 0, 0, rows);
  chunk_lse[0] = narrow(&first_lse, 1, 0, rows);
  chunk_out[1] = narrow(&second_out, 0, 0, rows);
  chunk_lse[1] = narrow(&second_lse, 1, 0, rows);
  run_chunk(backend, file, &chunks[0], &rows_q, &chunk_out[0], &chunk_lse[0]);
  run_chunk(backend, file, &chunks[1], &rows_q, &chunk_out[1], &chunk_lse[1]);
  bad += report(file, "chunk 0", "chunk0_out", "chunk0_lse", &chunk_out[0], &chunk_lse[0]);
  bad += report(file, "chunk 1", "chunk1_out", "chunk1_lse", &chunk_out[1], &chunk_lse[1]);

  /* The context's two parts, in place; then the context with the new tokens. */
  merge(&chunk_out[0], &chunk_lse[0], &chunk_out[0], &chunk_lse[0], &chunk_out[1], &chunk_lse[1]);
  bad += report(file, "context", "context_out", "context_lse", &chunk_out[0], &chunk_lse[0]);
  rows_out = narrow(&out, 0, 0, rows);
  rows_lse = narrow(&lse, 1, 0, rows);
  merge(&rows_out, &rows_lse, &chunk_out[0], &chunk_lse[0], &rows_out, &rows_lse);
  bad += report(file, "all", "out", "lse", &out, &lse);

  free(out.data);
  free(lse.data);
  free(first_out.data);
  free(first_lse.data);
  free(second_out.data);
  free(second_lse.data);
  return bad;
}

int main(int argc, char **argv) {
  const char *path = argc > 1 ? argv[1] : "Tests/Data/dsv2_chunked.safetensors";
  const int32_t rope = 64;
  st_file file;
  mla_tensor q, v;
  mla_backend *backend;
  const char *name;
  int bad;

  if (st_open(&file, path) != 0) {
    fprintf(stderr, "%s: not a readable safetensors file\n", path);
    return 1;
  }
  q = recorded(&file, "q");
  v = recorded(&file, "v_new");
  name = select_backend(&q, &v, rope);
  printf("mla_prefill %s, %s\n", mla_version(), mla_cpu_summary());
  printf("backend %s, errors against the recording:\n", name);
  backend = create_backend(&file, name, &q, &v, rope);
  bad = run_step(backend, &file);
  mla_backend_destroy(backend);
  st_close(&file);
  return bad == 0 ? 0 : 1;
}
