/* SPDX-License-Identifier: Apache-2.0 */
#include "recorder.h"

static int32_t supports_device(void *context, int32_t device_type, int32_t device_id) {
  recorder *mine = context;
  ++mine->asked;
  mine->device_type = device_type;
  mine->device_id = device_id;
  if (device_type == MLA_DEVICE_CUDA) {
    if (device_id == 7) mla_set_last_error_message("device 7 is out of order");
    return device_id <= 1;
  }
  return device_type == MLA_DEVICE_ROCM && device_id == 3;
}

static mla_status create(void *context, const mla_backend_config *config, void **instance) {
  recorder *mine = context;
  ++mine->created;
  mine->config = *config;
  *instance = mine;
  return MLA_OK;
}

static mla_status prepare_metadata(void *context, void *instance,
                                   const mla_prefill_metadata *metadata) {
  recorder *mine = instance;
  (void)context;
  ++mine->prepared;
  mine->metadata = *metadata;
  return MLA_OK;
}

static void note(recorder *mine, const mla_tensor *const tensors[5]) {
  ++mine->runs;
  mine->q = *tensors[0];
  mine->k = *tensors[1];
  mine->v = *tensors[2];
  mine->out = *tensors[3];
  mine->has_lse = tensors[4] != NULL;
  if (mine->has_lse) mine->lse = *tensors[4];
}

static mla_status run_prefill_new_tokens(void *context, void *instance,
                                         const mla_new_tokens_args *args) {
  recorder *mine = instance;
  const mla_tensor *const tensors[5] = {args->q, args->k, args->v, args->out, args->lse};
  (void)context;
  note(mine, tensors);
  mine->args_size = args->struct_size;
  mine->output_scale = args->output_scale ? *args->output_scale : 0.0F;
  mine->workspace = args->workspace;
  mine->workspace_size = args->workspace_size;
  mine->stream = args->stream;
  return MLA_OK;
}

static mla_status run_prefill_context_chunk(void *context, void *instance,
                                            const mla_context_chunk_args *args) {
  recorder *mine = instance;
  const mla_tensor *const tensors[5] = {args->q, args->k, args->v, args->out, args->lse};
  (void)context;
  note(mine, tensors);
  mine->args_size = args->struct_size;
  mine->workspace = args->workspace;
  mine->workspace_size = args->workspace_size;
  mine->stream = args->stream;
  mine->device_query_start_loc = args->device_query_start_loc;
  mine->device_cu_seq_lens = args->device_cu_seq_lens;
  return MLA_OK;
}

static int32_t supports_quant_output(void *context, void *instance, int32_t dtype) {
  (void)context;
  (void)instance;
  return dtype == MLA_DTYPE_FLOAT8_E4M3FN;
}

mla_backend_vtable recorder_table(recorder *mine) {
  mla_backend_vtable table = MLA_BACKEND_VTABLE_INIT;
  table.context = mine;
  table.create = create;
  table.prepare_metadata = prepare_metadata;
  table.run_prefill_new_tokens = run_prefill_new_tokens;
  table.run_prefill_context_chunk = run_prefill_context_chunk;
  table.supports_quant_output = supports_quant_output;
  table.supports_device = supports_device;
  return table;
}
