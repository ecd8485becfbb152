/*
 * A layer on a backend of one's own, in C99: the backend hands its runs on to a
 * built-in one, so that a layer must give the same numbers with and without it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mla_prefill.h"

enum {
  heads = 3,
  nope = 16,
  rope = 8,
  v_dim = 16,
  rank = 40,
  requests = 4,
  tokens = 26, /* 5, 1, 0 and 20 */
  block_size = 16,
  max_blocks = 20,
  blocks = requests * max_blocks
};

static const int32_t query_start_loc[requests + 1] = {0, 5, 6, 6, tokens};
static const int32_t context_lens[requests] = {0, 70, 9, 300};

static float kv_b_proj[heads * (nope + v_dim) * rank];
static float q[tokens * heads * (nope + rope)], latents[tokens * rank], k_pe[tokens * rope];
static float cache[blocks * block_size * (rank + rope)];
static int32_t block_table[requests * max_blocks];
static float out[tokens * heads * v_dim], lse[heads * tokens];
static float expected_out[tokens * heads * v_dim], expected_lse[heads * tokens];

static int failures;

static void report(const char *name, int good) {
  printf("%s layer_backend %s\n", good ? "ok" : "not ok", name);
  if (!good) {
    printf("   last error: %s\n", mla_last_error_message());
    ++failures;
  }
}

/** What the backend below is asked, and from which run on it fails. */
typedef struct context {
  int created, destroyed, context_destroyed, new_tokens, chunks;
  int failing_run;
} context;

static mla_status create(void *opaque, const mla_backend_config *config, void **instance) {
  mla_backend_config own = *config;
  mla_backend *backend = NULL;
  mla_status status;
  own.ignore_override = 1;
  status = mla_backend_create("FLASH_ATTN", &own, &backend);
  ++((context *)opaque)->created;
  *instance = backend;
  return status;
}

static void destroy(void *opaque, void *instance) {
  ++((context *)opaque)->destroyed;
  mla_backend_destroy(instance);
}

static void destroy_context(void *opaque) { ++((context *)opaque)->context_destroyed; }

static mla_status prepare(void *opaque, void *instance, const mla_prefill_metadata *metadata) {
  (void)opaque;
  return mla_prepare_metadata(instance, metadata);
}

static mla_status refused(context *mine) {
  if (mine->failing_run == 0 || mine->new_tokens + mine->chunks < mine->failing_run) return MLA_OK;
  mla_set_last_error_message("the backend is out of order");
  return MLA_ERROR_UNSUPPORTED_HARDWARE;
}

static mla_status run_new_tokens(void *opaque, void *instance, const mla_new_tokens_args *args) {
  ++((context *)opaque)->new_tokens;
  if (refused(opaque) != MLA_OK) return MLA_ERROR_UNSUPPORTED_HARDWARE;
  return mla_run_prefill_new_tokens(instance, args);
}

static mla_status run_chunk(void *opaque, void *instance, const mla_context_chunk_args *args) {
  ++((context *)opaque)->chunks;
  if (refused(opaque) != MLA_OK) return MLA_ERROR_UNSUPPORTED_HARDWARE;
  return mla_run_prefill_context_chunk(instance, args);
}

static int64_t workspace_size(void *opaque, void *instance) {
  int64_t bytes = -1;
  (void)opaque;
  return mla_workspace_size(instance, &bytes) == MLA_OK ? bytes : -1;
}

static mla_status override(context *mine) {
  mla_backend_vtable table = MLA_BACKEND_VTABLE_INIT;
  mla_backend_registration registration = MLA_BACKEND_REGISTRATION_INIT;
  table.context = mine;
  table.destroy_context = destroy_context;
  table.create = create;
  table.destroy = destroy;
  table.prepare_metadata = prepare;
  table.run_prefill_new_tokens = run_new_tokens;
  table.run_prefill_context_chunk = run_chunk;
  table.workspace_size = workspace_size;
  registration.vtable = &table;
  return mla_override_backend("FLASH_ATTN", &registration);
}

static void fill(float *values, size_t count, float scale) {
  static uint32_t state = 1;
  size_t i;
  for (i = 0; i < count; ++i) {
    state = state * 1664525U + 1013904223U;
    values[i] = scale * ((float)(state >> 8) / 8388608.0F - 1.0F);
  }
}

static mla_tensor view_of(float *data, int32_t ndim, int64_t a, int64_t b, int64_t c) {
  mla_tensor view = MLA_TENSOR_INIT;
  view.dtype = MLA_DTYPE_FLOAT32;
  view.data = data;
  view.ndim = ndim;
  view.shape[0] = a;
  view.shape[1] = b;
  view.shape[2] = c;
  view.strides[0] = ndim == 2 ? b : b * c;
  view.strides[1] = ndim == 2 ? 1 : c;
  view.strides[2] = 1;
  return view;
}

static mla_status create_layer(int64_t bound, mla_layer **layer) {
  mla_layer_config config = MLA_LAYER_CONFIG_INIT;
  const mla_tensor weights = view_of(kv_b_proj, 2, heads * (nope + v_dim), rank, 0);
  config.num_heads = heads;
  config.scale = 0.2;
  config.kv_lora_rank = rank;
  config.qk_nope_head_dim = nope;
  config.qk_rope_head_dim = rope;
  config.v_head_dim = v_dim;
  config.backend = "FLASH_ATTN";
  config.kv_b_proj = &weights;
  config.workspace_bound = bound;
  return mla_layer_create(&config, layer);
}

static mla_status forward(const mla_layer *layer, int with_lse, int64_t *workspace_bytes) {
  mla_layer_forward_args args = MLA_LAYER_FORWARD_ARGS_INIT;
  const mla_tensor q_view = view_of(q, 3, tokens, heads, nope + rope);
  const mla_tensor latents_view = view_of(latents, 2, tokens, rank, 0);
  const mla_tensor k_pe_view = view_of(k_pe, 2, tokens, rope, 0);
  const mla_tensor cache_view = view_of(cache, 3, blocks, block_size, rank + rope);
  const mla_tensor out_view = view_of(out, 3, tokens, heads, v_dim);
  const mla_tensor lse_view = view_of(lse, 2, heads, tokens, 0);
  args.num_requests = requests;
  args.query_start_loc = query_start_loc;
  args.context_lens = context_lens;
  args.q = &q_view;
  args.kv_c_normed = &latents_view;
  args.k_pe = &k_pe_view;
  args.kv_cache = &cache_view;
  args.block_table = block_table;
  args.block_table_stride = max_blocks;
  args.max_blocks = max_blocks;
  args.out = &out_view;
  args.lse = with_lse ? &lse_view : NULL;
  memset(out, 0x7F, sizeof(out));
  memset(lse, 0x7F, sizeof(lse));
  return workspace_bytes ? mla_layer_workspace_size(layer, &args, workspace_bytes)
                         : mla_layer_forward(layer, &args);
}

static int untouched(const float *values, size_t bytes) {
  size_t i;
  for (i = 0; i < bytes; ++i) {
    if (((const unsigned char *)values)[i] != 0x7F) return 0;
  }
  return 1;
}

static int near(const float *a, const float *b, size_t count) {
  size_t i;
  for (i = 0; i < count; ++i) {
    /* A NaN must not pass. */
    if (!(fabsf(a[i] - b[i]) <= 2e-5F)) return 0;
  }
  return 1;
}

/** The bytes that the refusal of too small a bound asks for. */
static int64_t smallest_bound(void) {
  mla_layer *layer = NULL;
  int64_t bytes = 0;
  const char *said;
  if (create_layer(1, &layer) != MLA_OK) return 0;
  if (forward(layer, 1, &bytes) == MLA_ERROR_INVALID_ARGUMENT) {
    said = strstr(mla_last_error_message(), "this batch needs ");
    if (said) bytes = strtoll(said + strlen("this batch needs "), NULL, 10);
  }
  mla_layer_destroy(layer);
  return bytes;
}

static void agrees(context *mine, const char *name, int64_t bound, int with_lse, int least_chunks) {
  mla_layer *layer = NULL;
  int64_t bytes = 0;
  int good;
  mine->new_tokens = mine->chunks = 0;
  good = create_layer(bound, &layer) == MLA_OK && forward(layer, 1, &bytes) == MLA_OK &&
         (bound == 0 || bytes <= bound) && forward(layer, with_lse, NULL) == MLA_OK &&
         mine->new_tokens == 1 && mine->chunks >= least_chunks &&
         near(out, expected_out, sizeof(out) / sizeof(float)) &&
         (with_lse ? near(lse, expected_lse, sizeof(lse) / sizeof(float))
                   : untouched(lse, sizeof(lse)));
  report(name, good);
  mla_layer_destroy(layer);
}

static void fails(context *mine, int64_t bound) {
  mla_layer *layer = NULL;
  int good = create_layer(bound, &layer) == MLA_OK;
  int run;
  for (run = 1; run <= 4; ++run) {
    mine->new_tokens = mine->chunks = 0;
    mine->failing_run = run;
    good = good && forward(layer, 1, NULL) == MLA_ERROR_UNSUPPORTED_HARDWARE &&
           strcmp(mla_last_error_message(), "the backend is out of order") == 0 &&
           mine->new_tokens + mine->chunks == run && untouched(out, sizeof(out)) &&
           untouched(lse, sizeof(lse));
  }
  mine->failing_run = 0;
  report("a failing run's status and message arrive, nothing is written", good);
  mla_layer_destroy(layer);
}

int main(void) {
  static context mine;
  mla_layer *fused = NULL, *kept = NULL;
  int64_t bound;
  int i;
  fill(kv_b_proj, sizeof(kv_b_proj) / sizeof(float), 0.3F);
  fill(q, sizeof(q) / sizeof(float), 1);
  fill(latents, sizeof(latents) / sizeof(float), 1);
  fill(k_pe, sizeof(k_pe) / sizeof(float), 1);
  fill(cache, sizeof(cache) / sizeof(float), 1);
  for (i = 0; i < requests * max_blocks; ++i) block_table[i] = (i * 37) % blocks;

  report("fused", create_layer(0, &fused) == MLA_OK && forward(fused, 1, NULL) == MLA_OK);
  memcpy(expected_out, out, sizeof(out));
  memcpy(expected_lse, lse, sizeof(lse));
  report("override", override(&mine) == MLA_OK);
  bound = smallest_bound();
  agrees(&mine, "one chunk", 0, 1, 1);
  agrees(&mine, "as many chunks as the bound asks for", bound, 1, 3);
  agrees(&mine, "without lse", bound, 0, 3);
  fails(&mine, bound);
  report("a layer keeps the implementation that it was created with",
         create_layer(0, &kept) == MLA_OK && mla_clear_override("FLASH_ATTN") == MLA_OK &&
             forward(fused, 1, NULL) == MLA_OK && memcmp(out, expected_out, sizeof(out)) == 0 &&
             mine.context_destroyed == 0);
  mla_layer_destroy(kept);
  mla_layer_destroy(fused);
  report("destroyed, and the context last",
         mine.created > 0 && mine.destroyed == mine.created && mine.context_destroyed == 1);
  return failures != 0;
}
