/* SPDX-License-Identifier: Apache-2.0 */
#include "call.h"

#include <stdio.h>
#include <string.h>

int failures;
recorder mine;
char *device_memory;

void report(const char *name, int good) {
  printf("%s devices: %s\n", good ? "ok" : "not ok", name);
  if (!good) {
    printf("   last error: %s\n", mla_last_error_message());
    ++failures;
  }
}

int refused(mla_status status, mla_status expected, const char *text) {
  return status == expected && strstr(mla_last_error_message(), text) != NULL;
}

mla_backend_config config_on(int32_t device_type, int32_t device_id) {
  mla_backend_config config = MLA_BACKEND_CONFIG_INIT;
  config.num_heads = HEADS;
  config.scale = 0.5;
  config.kv_lora_rank = 32;
  config.qk_nope_head_dim = 16;
  config.qk_rope_head_dim = 8;
  config.v_head_dim = V_DIM;
  config.device_type = device_type;
  config.device_id = device_id;
  return config;
}

mla_tensor view_at(size_t offset, int64_t rows, int64_t columns, int64_t dim) {
  mla_tensor view = MLA_TENSOR_INIT;
  view.dtype = MLA_DTYPE_BFLOAT16;
  view.data = device_memory + offset;
  view.device_type = MLA_DEVICE_CUDA;
  view.device_id = 1;
  view.ndim = 3;
  view.shape[0] = rows;
  view.shape[1] = columns;
  view.shape[2] = dim;
  view.strides[0] = columns * dim;
  view.strides[1] = dim;
  view.strides[2] = 1;
  return view;
}

call call_of(int64_t keys) {
  call c;
  c.q = view_at(0, TOKENS, HEADS, QK_DIM);
  c.k = view_at(4096, keys, HEADS, QK_DIM);
  c.v = view_at(8192, keys, HEADS, V_DIM);
  c.out = view_at(12288, TOKENS, HEADS, V_DIM);
  c.lse = view_at(16384, HEADS, TOKENS, 1);
  c.lse.dtype = MLA_DTYPE_FLOAT32;
  c.lse.ndim = 2;
  c.lse.strides[0] = TOKENS;
  c.lse.strides[1] = 1;
  c.workspace = device_memory + 20480;
  c.queries = (const int32_t *)(void *)(device_memory + 24576);
  c.keys = (const int32_t *)(void *)(device_memory + 28672);
  c.stream = device_memory + 77;
  return c;
}

mla_status run_new_tokens(mla_backend *backend, const call *c) {
  mla_new_tokens_args args = MLA_NEW_TOKENS_ARGS_INIT;
  args.q = &c->q;
  args.k = &c->k;
  args.v = &c->v;
  args.out = &c->out;
  args.lse = &c->lse;
  args.workspace = c->workspace;
  args.workspace_size = 4096;
  args.stream = c->stream;
  return mla_run_prefill_new_tokens(backend, &args);
}

mla_status run_chunk(mla_backend *backend, const call *c) {
  static const int32_t queries[] = {0, TOKENS}, keys[] = {0, KEYS};
  mla_context_chunk chunk = MLA_CONTEXT_CHUNK_INIT;
  mla_context_chunk_args args = MLA_CONTEXT_CHUNK_ARGS_INIT;
  chunk.num_requests = 1;
  chunk.query_start_loc = queries;
  chunk.cu_seq_lens = keys;
  args.chunk = &chunk;
  args.q = &c->q;
  args.k = &c->k;
  args.v = &c->v;
  args.out = &c->out;
  args.lse = &c->lse;
  args.workspace = c->workspace;
  args.workspace_size = 4096;
  args.stream = c->stream;
  args.device_query_start_loc = c->queries;
  args.device_cu_seq_lens = c->keys;
  return mla_run_prefill_context_chunk(backend, &args);
}

mla_prefill_metadata metadata_of(const int32_t *device_query_start_loc) {
  static const int32_t offsets[] = {0, 3, TOKENS};
  mla_prefill_metadata metadata = MLA_PREFILL_METADATA_INIT;
  metadata.num_requests = 2;
  metadata.query_start_loc = offsets;
  metadata.device_query_start_loc = device_query_start_loc;
  return metadata;
}
