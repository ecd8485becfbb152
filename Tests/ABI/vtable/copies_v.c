/* SPDX-License-Identifier: Apache-2.0 */
#include "copies_v.h"

char copies_v_long_message[2000];

static mla_status validate(void *opaque, const mla_selector_config *config, mla_reason_sink sink,
                           void *sink_context) {
  (void)opaque;
  if (config->dtype != MLA_DTYPE_FLOAT32) sink(sink_context, "only fp32 here");
  if (config->v_head_dim > 64) sink(sink_context, "v_head_dim is too large");
  return MLA_OK;
}

static mla_status create(void *opaque, const mla_backend_config *config, void **instance) {
  copies_v *mine = opaque;
  if (config->num_heads != copies_v_heads) {
    mla_set_last_error_message("num_heads: this backend wants 2");
    return MLA_ERROR_UNSUPPORTED_CONFIGURATION;
  }
  ++mine->created;
  mine->config = *config;
  *instance = mine;
  return MLA_OK;
}

static void destroy(void *opaque, void *instance) {
  (void)opaque;
  ++((copies_v *)instance)->destroyed;
}

static void destroy_context(void *opaque) { ++((copies_v *)opaque)->context_destroyed; }

static mla_status prepare(void *opaque, void *instance, const mla_prefill_metadata *metadata) {
  copies_v *mine = instance;
  (void)opaque;
  ++mine->prepared;
  mine->tokens = metadata->query_start_loc[metadata->num_requests];
  return MLA_OK;
}

static void copy_v(const mla_tensor *v, const mla_tensor *out) {
  int64_t token, head, i;
  for (token = 0; token < out->shape[0]; ++token) {
    for (head = 0; head < out->shape[1]; ++head) {
      for (i = 0; i < out->shape[2]; ++i) {
        ((float *)out->data)[token * out->strides[0] + head * out->strides[1] + i] =
            ((const float *)v->data)[token * v->strides[0] + head * v->strides[1] + i];
      }
    }
  }
}

static mla_status run_new_tokens(void *opaque, void *instance, const mla_new_tokens_args *args) {
  copies_v *mine = instance;
  (void)opaque;
  if (mine->refuse_run) {
    if (mine->refuse_run == 1) mla_set_last_error_message("the backend is out of order");
    return MLA_ERROR_INTERNAL;
  }
  ++mine->new_tokens;
  if (mine->mutters) mla_set_last_error_message(copies_v_long_message);
  if (args->output_scale) {
    mine->output_scale = *args->output_scale;
    return args->out->dtype == MLA_DTYPE_FLOAT8_E4M3FN ? MLA_OK : MLA_ERROR_INTERNAL;
  }
  copy_v(args->v, args->out);
  return MLA_OK;
}

static mla_status run_chunk(void *opaque, void *instance, const mla_context_chunk_args *args) {
  copies_v *mine = instance;
  (void)opaque;
  if (mine->refuse_run) return MLA_ERROR_INTERNAL;
  ++mine->chunks;
  copy_v(args->v, args->out);
  return MLA_OK;
}

static int32_t quant(void *opaque, void *instance, int32_t dtype) {
  (void)opaque;
  return ((copies_v *)instance)->writes_fp8 && dtype == MLA_DTYPE_FLOAT8_E4M3FN;
}

static int64_t workspace(void *opaque, void *instance) {
  (void)opaque;
  return 64 * (int64_t)((copies_v *)instance)->tokens;
}

mla_backend_vtable copies_v_table(copies_v *mine) {
  mla_backend_vtable table = MLA_BACKEND_VTABLE_INIT;
  table.context = mine;
  table.destroy_context = destroy_context;
  table.backend_name = "COPIES_V";
  table.validate = validate;
  table.create = create;
  table.destroy = destroy;
  table.prepare_metadata = prepare;
  table.run_prefill_new_tokens = run_new_tokens;
  table.run_prefill_context_chunk = run_chunk;
  table.supports_quant_output = quant;
  table.workspace_size = workspace;
  return table;
}
