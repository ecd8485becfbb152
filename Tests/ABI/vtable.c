/*
 * A backend written in C99, registered and run through the C ABI.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "vtable/copies_v.h"

#define HEADS copies_v_heads
#define QK_DIM 24
#define V_DIM 16
#define TOKENS 5

static int failures;

static void report(const char *name, int good) {
  printf("%s vtable %s\n", good ? "ok" : "not ok", name);
  if (!good) {
    printf("   last error: %s\n", mla_last_error_message());
    ++failures;
  }
}

static mla_backend_config config_of(int32_t heads) {
  mla_backend_config config = MLA_BACKEND_CONFIG_INIT;
  config.num_heads = heads;
  config.scale = 0.5;
  config.kv_lora_rank = 32;
  config.qk_nope_head_dim = 16;
  config.qk_rope_head_dim = 8;
  config.v_head_dim = V_DIM;
  return config;
}

static mla_tensor view_of(float *data, int64_t tokens, int64_t dim) {
  mla_tensor view = MLA_TENSOR_INIT;
  view.dtype = MLA_DTYPE_FLOAT32;
  view.data = data;
  view.ndim = 3;
  view.shape[0] = tokens;
  view.shape[1] = HEADS;
  view.shape[2] = dim;
  view.strides[0] = HEADS * dim;
  view.strides[1] = dim;
  view.strides[2] = 1;
  return view;
}

static mla_tensor lse_view(float *data) {
  mla_tensor view = view_of(data, TOKENS, 1);
  view.ndim = 2;
  view.shape[0] = HEADS;
  view.shape[1] = TOKENS;
  view.strides[0] = TOKENS;
  view.strides[1] = 1;
  return view;
}

static float q_data[TOKENS * HEADS * QK_DIM], k_data[TOKENS * HEADS * QK_DIM];
static float v_data[TOKENS * HEADS * V_DIM], out_data[TOKENS * HEADS * V_DIM];
static float lse_data[HEADS * TOKENS];

static mla_status run_once(mla_backend *backend) {
  const mla_tensor q = view_of(q_data, TOKENS, QK_DIM), k = view_of(k_data, TOKENS, QK_DIM);
  const mla_tensor v = view_of(v_data, TOKENS, V_DIM), out = view_of(out_data, TOKENS, V_DIM);
  mla_new_tokens_args args = MLA_NEW_TOKENS_ARGS_INIT;
  args.q = &q;
  args.k = &k;
  args.v = &v;
  args.out = &out;
  return mla_run_prefill_new_tokens(backend, &args);
}

static mla_status run_quantized(mla_backend *backend) {
  static uint8_t codes[TOKENS * HEADS * V_DIM];
  const float scale = 0.25F;
  const mla_tensor q = view_of(q_data, TOKENS, QK_DIM), k = view_of(k_data, TOKENS, QK_DIM);
  const mla_tensor v = view_of(v_data, TOKENS, V_DIM);
  mla_tensor out = view_of(out_data, TOKENS, V_DIM);
  mla_new_tokens_args args = MLA_NEW_TOKENS_ARGS_INIT;
  out.dtype = MLA_DTYPE_FLOAT8_E4M3FN;
  out.data = codes;
  args.q = &q;
  args.k = &k;
  args.v = &v;
  args.out = &out;
  args.output_scale = &scale;
  return mla_run_prefill_new_tokens(backend, &args);
}

static mla_status run_one_chunk(mla_backend *backend, const int32_t *offsets) {
  const mla_tensor q = view_of(q_data, TOKENS, QK_DIM), k = view_of(k_data, TOKENS, QK_DIM);
  const mla_tensor v = view_of(v_data, TOKENS, V_DIM), out = view_of(out_data, TOKENS, V_DIM);
  const mla_tensor lse = lse_view(lse_data);
  mla_context_chunk chunk = MLA_CONTEXT_CHUNK_INIT;
  mla_context_chunk_args args = MLA_CONTEXT_CHUNK_ARGS_INIT;
  chunk.num_requests = 1;
  chunk.query_start_loc = offsets;
  chunk.cu_seq_lens = offsets;
  args.chunk = &chunk;
  args.q = &q;
  args.k = &k;
  args.v = &v;
  args.out = &out;
  args.lse = &lse;
  return mla_run_prefill_context_chunk(backend, &args);
}

/** The row of a member in the list, judged for fp32 or bf16. */
static int listed(const char *name, int32_t dtype, int32_t valid, const char *reasons) {
  mla_selector_config config = MLA_SELECTOR_CONFIG_INIT;
  mla_backend_list *list;
  mla_backend_info info = MLA_BACKEND_INFO_INIT;
  int32_t i, size;
  int good = 0;
  config.dtype = dtype;
  config.qk_nope_head_dim = 16;
  config.qk_rope_head_dim = 8;
  config.v_head_dim = V_DIM;
  if (mla_backend_list_create(&config, &list) != MLA_OK) return 0;
  size = mla_backend_list_size(list);
  for (i = 0; i < size; ++i) {
    if (mla_backend_list_get(list, i, &info) != MLA_OK || strcmp(info.name, name) != 0) continue;
    good = info.is_valid == valid && info.is_runnable == 1 &&
           strcmp(info.backend_name, "COPIES_V") == 0 && strcmp(info.reasons, reasons) == 0;
  }
  mla_backend_list_destroy(list);
  return good;
}

/** A message stays valid until the thread's next failing call. */
static int keeps_last_error(mla_backend *backend, copies_v *mine) {
  const char *message;
  int good;
  mla_set_last_error_message("what went wrong");
  message = mla_last_error_message();
  good = run_once(backend) == MLA_OK && listed("FROM_C", MLA_DTYPE_BFLOAT16, 0, "only fp32 here");
  memset(copies_v_long_message, 'x', sizeof(copies_v_long_message) - 1);
  mine->mutters = 1;
  good = good && run_once(backend) == MLA_OK;
  mine->mutters = 0;
  return good && message == mla_last_error_message() && strcmp(message, "what went wrong") == 0;
}

static void life_of_a_member(void) {
  static copies_v mine;
  const mla_backend_vtable table = copies_v_table(&mine);
  const mla_backend_config config = config_of(HEADS), wrong = config_of(HEADS + 1);
  const int32_t offsets[] = {0, TOKENS};
  mla_backend_registration registration = MLA_BACKEND_REGISTRATION_INIT;
  mla_prefill_metadata metadata = MLA_PREFILL_METADATA_INIT;
  mla_backend *backend = NULL, *clone = NULL;
  int64_t bytes = 0;
  int32_t answer = -1;

  registration.vtable = &table;
  metadata.num_requests = 1;
  metadata.query_start_loc = offsets;
  report("register", mla_register_backend("FROM_C", &registration) == MLA_OK);
  report("a name is registered once",
         mla_register_backend("FROM_C", &registration) == MLA_ERROR_INVALID_ARGUMENT);
  report("listed as valid", listed("FROM_C", MLA_DTYPE_FLOAT32, 1, ""));
  report("listed with its reasons", listed("FROM_C", MLA_DTYPE_BFLOAT16, 0, "only fp32 here"));
  report("create's status and message arrive",
         mla_backend_create("FROM_C", &wrong, &backend) == MLA_ERROR_UNSUPPORTED_CONFIGURATION &&
             strstr(mla_last_error_message(), "this backend wants 2") != NULL);
  report("create", mla_backend_create("FROM_C", &config, &backend) == MLA_OK && mine.created == 1);
  report("create is told what it is for",
         mine.config.kv_lora_rank == config.kv_lora_rank &&
             mine.config.qk_nope_head_dim == config.qk_nope_head_dim &&
             mine.config.qk_rope_head_dim == config.qk_rope_head_dim &&
             mine.config.v_head_dim == config.v_head_dim && fabs(mine.config.scale - 0.5) <= 0);
  report("no run before prepare_metadata",
         run_once(backend) == MLA_ERROR_INVALID_ARGUMENT && mine.new_tokens == 0);
  report("prepare", mla_prepare_metadata(backend, &metadata) == MLA_OK && mine.prepared == 1);
  report("a warm-up is none of its calls", mla_warm_up(backend) == MLA_OK && mine.new_tokens == 0);
  v_data[7] = 42.0F;
  report("run new tokens", run_once(backend) == MLA_OK && mine.new_tokens == 1 &&
                               memcmp(out_data, v_data, sizeof(v_data)) == 0);
  report("run context chunk", run_one_chunk(backend, offsets) == MLA_OK && mine.chunks == 1);
  report("workspace size", mla_workspace_size(backend, &bytes) == MLA_OK && bytes == 64 * TOKENS);
  report("supports out by default", mla_supports_out(backend, &answer) == MLA_OK && answer == 1);
  report("no quantized run where it is not supported",
         run_quantized(backend) == MLA_ERROR_UNSUPPORTED_CONFIGURATION && mine.new_tokens == 1);
  mine.writes_fp8 = 1;
  report("supports quant output",
         mla_supports_quant_output(backend, MLA_DTYPE_FLOAT8_E4M3FN, &answer) == MLA_OK &&
             answer == 1);
  report("the scale is handed on",
         run_quantized(backend) == MLA_OK && fabsf(mine.output_scale - 0.25F) == 0);
  mine.refuse_run = 1;
  report("a run's status and message arrive",
         run_once(backend) == MLA_ERROR_INTERNAL &&
             strstr(mla_last_error_message(), "the backend is out of order") != NULL);
  mine.refuse_run = 2;
  report("a chunk's, too", run_one_chunk(backend, offsets) == MLA_ERROR_INTERNAL);
  mla_set_last_error_message("an old message");
  report("a silent failure still has a message of its own",
         run_once(backend) == MLA_ERROR_INTERNAL && mla_last_error_message()[0] != 0 &&
             strstr(mla_last_error_message(), "an old message") == NULL);
  mine.refuse_run = 0;
  report("a success keeps the last error", keeps_last_error(backend, &mine));
  report("clone", mla_backend_clone(backend, &clone) == MLA_OK && mine.created == 2);
  report("a clone has no metadata", run_once(clone) == MLA_ERROR_INVALID_ARGUMENT);
  report("remove", mla_remove_backend("FROM_C") == MLA_OK);
  report("an object outlives its member",
         run_once(backend) == MLA_OK && mine.context_destroyed == 0);
  mla_backend_destroy(backend);
  mla_backend_destroy(clone);
  report("destroyed, and the context last", mine.destroyed == 2 && mine.context_destroyed == 1);
}

static void life_of_an_override(void) {
  static copies_v mine;
  const mla_backend_vtable table = copies_v_table(&mine);
  const mla_backend_config config = config_of(HEADS);
  const int32_t offsets[] = {0, TOKENS};
  mla_backend_registration registration = MLA_BACKEND_REGISTRATION_INIT;
  mla_prefill_metadata metadata = MLA_PREFILL_METADATA_INIT;
  mla_backend *before = NULL, *during = NULL;
  const char *path = NULL;
  int32_t overridden = -1;

  registration.vtable = &table;
  registration.class_path = "package.module.CopiesV";
  metadata.num_requests = 1;
  metadata.query_start_loc = offsets;
  report("an object from before the override",
         mla_backend_create("FLASH_ATTN", &config, &before) == MLA_OK);
  report("override", mla_override_backend("FLASH_ATTN", &registration) == MLA_OK);
  report("is overridden",
         mla_backend_is_overridden("FLASH_ATTN", &overridden) == MLA_OK && overridden == 1);
  report("its path", mla_backend_path("FLASH_ATTN", &path) == MLA_OK &&
                         strcmp(path, "package.module.CopiesV") == 0);
  report("an object from the override",
         mla_backend_create("FLASH_ATTN", &config, &during) == MLA_OK && mine.created == 1 &&
             strcmp(mla_backend_name(during), "FLASH_ATTN") == 0);
  mla_prepare_metadata(before, &metadata);
  report("the older object keeps its implementation",
         run_once(before) == MLA_OK && mine.new_tokens == 0);
  report("clear", mla_clear_override("FLASH_ATTN") == MLA_OK &&
                      mla_backend_is_overridden("FLASH_ATTN", &overridden) == MLA_OK &&
                      overridden == 0);
  mla_prepare_metadata(during, &metadata);
  report("the newer object keeps its implementation, too",
         run_once(during) == MLA_OK && mine.new_tokens == 1);
  mla_backend_destroy(before);
  mla_backend_destroy(during);
  report("the override's context is gone", mine.context_destroyed == 1);
}

int main(void) {
  life_of_a_member();
  life_of_an_override();
  return failures != 0;
}
