/*
 * ABI version 1, frozen: every value, size and offset that a program compiled today
 * relies on; its prototypes are in abi_prototypes.c. A later version may append; no
 * line below may ever change or go.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "abi_assertions.h"
#include "mla_prefill.h"

VALUE(MLA_ABI_VERSION, 1);
VALUE(MLA_MAX_NDIM, 4);
VALUE(MLA_OK, 0);
VALUE(MLA_ERROR_INVALID_ARGUMENT, 1);
VALUE(MLA_ERROR_UNSUPPORTED_CONFIGURATION, 2);
VALUE(MLA_ERROR_UNSUPPORTED_HARDWARE, 3);
VALUE(MLA_ERROR_NOT_REGISTERED, 4);
VALUE(MLA_ERROR_OUT_OF_MEMORY, 5);
VALUE(MLA_ERROR_INTERNAL, 6);
VALUE(MLA_ISA_DEFAULT, 0);
VALUE(MLA_ISA_PORTABLE, 1);
VALUE(MLA_ISA_AVX2, 2);
VALUE(MLA_ISA_AVX512, 3);
VALUE(MLA_ISA_AVX512_BF16, 4);
VALUE(MLA_ISA_AMX, 5);
VALUE(MLA_LAYER_ALGORITHM_AUTO, 0);
VALUE(MLA_LAYER_ALGORITHM_UP_PROJECTED, 1);
VALUE(MLA_LAYER_ALGORITHM_ABSORBED, 2);
VALUE(MLA_CPU_AVX2, 1);
VALUE(MLA_CPU_FMA, 2);
VALUE(MLA_CPU_F16C, 4);
VALUE(MLA_CPU_AVX512F, 8);
VALUE(MLA_CPU_AVX512BW, 16);
VALUE(MLA_CPU_AVX512DQ, 32);
VALUE(MLA_CPU_AVX512VL, 64);
VALUE(MLA_CPU_AVX512_BF16, 128);
VALUE(MLA_CPU_AMX_TILE, 256);
VALUE(MLA_CPU_AMX_BF16, 512);
VALUE(MLA_LOG_DEBUG, 0);
VALUE(MLA_LOG_INFO, 1);
VALUE(MLA_LOG_WARNING, 2);
VALUE(MLA_DTYPE_NONE, 0);
VALUE(MLA_DTYPE_FLOAT32, 1);
VALUE(MLA_DTYPE_FLOAT16, 2);
VALUE(MLA_DTYPE_BFLOAT16, 3);
VALUE(MLA_DTYPE_FLOAT8_E4M3FN, 4);
VALUE(MLA_DEVICE_CPU, 1);
VALUE(MLA_DEVICE_CUDA, 2);
VALUE(MLA_DEVICE_CUDA_HOST, 3);
VALUE(MLA_DEVICE_ROCM, 10);
VALUE(MLA_DEVICE_ROCM_HOST, 11);
VALUE(MLA_PLATFORM_AUTO, 0);
VALUE(MLA_PLATFORM_CPU, 1);
VALUE(MLA_PLATFORM_CUDA, 2);
VALUE(MLA_PLATFORM_ROCM, 3);
VALUE(MLA_CACHE_FORMAT_PLAIN, 0);
VALUE(MLA_CACHE_FORMAT_FP8_DS_MLA, 1);

SIZE(mla_cpu_info, 112);
FIELD(mla_cpu_info, struct_size, 0, 4);
FIELD(mla_cpu_info, features, 4, 4);
FIELD(mla_cpu_info, best_isa, 8, 4);
FIELD(mla_cpu_info, isa, 12, 4);
FIELD(mla_cpu_info, bf16_isa, 16, 4);
FIELD(mla_cpu_info, fp16_isa, 20, 4);
FIELD(mla_cpu_info, fp32_isa, 24, 4);
FIELD(mla_cpu_info, num_processors, 28, 4);
FIELD(mla_cpu_info, vendor, 32, 16);
FIELD(mla_cpu_info, model, 48, 64);

SIZE(mla_tensor, 96);
FIELD(mla_tensor, struct_size, 0, 4);
FIELD(mla_tensor, dtype, 4, 4);
FIELD(mla_tensor, data, 8, 8);
FIELD(mla_tensor, device_type, 16, 4);
FIELD(mla_tensor, device_id, 20, 4);
FIELD(mla_tensor, ndim, 24, 4);
FIELD(mla_tensor, reserved, 28, 4);
FIELD(mla_tensor, shape, 32, 32);
FIELD(mla_tensor, strides, 64, 32);

SIZE(mla_backend_registration, 24);
FIELD(mla_backend_registration, struct_size, 0, 4);
FIELD(mla_backend_registration, reserved, 4, 4);
FIELD(mla_backend_registration, class_path, 8, 8);
FIELD(mla_backend_registration, vtable, 16, 8);

SIZE(mla_selector_config, 48);
FIELD(mla_selector_config, struct_size, 0, 4);
FIELD(mla_selector_config, dtype, 4, 4);
FIELD(mla_selector_config, qk_nope_head_dim, 8, 4);
FIELD(mla_selector_config, qk_rope_head_dim, 12, 4);
FIELD(mla_selector_config, v_head_dim, 16, 4);
FIELD(mla_selector_config, platform, 20, 4);
FIELD(mla_selector_config, capability_major, 24, 4);
FIELD(mla_selector_config, capability_minor, 28, 4);
FIELD(mla_selector_config, batch_invariant, 32, 4);
FIELD(mla_selector_config, ignore_overrides, 36, 4);
FIELD(mla_selector_config, backend, 40, 8);

SIZE(mla_backend_info, 56);
FIELD(mla_backend_info, struct_size, 0, 4);
FIELD(mla_backend_info, is_valid, 4, 4);
FIELD(mla_backend_info, name, 8, 8);
FIELD(mla_backend_info, backend_name, 16, 8);
FIELD(mla_backend_info, class_path, 24, 8);
FIELD(mla_backend_info, reasons, 32, 8);
FIELD(mla_backend_info, num_reasons, 40, 4);
FIELD(mla_backend_info, is_overridden, 44, 4);
FIELD(mla_backend_info, is_dynamic, 48, 4);
FIELD(mla_backend_info, is_runnable, 52, 4);

SIZE(mla_context_chunk, 32);
FIELD(mla_context_chunk, struct_size, 0, 4);
FIELD(mla_context_chunk, index, 4, 4);
FIELD(mla_context_chunk, num_requests, 8, 4);
FIELD(mla_context_chunk, reserved, 12, 4);
FIELD(mla_context_chunk, query_start_loc, 16, 8);
FIELD(mla_context_chunk, cu_seq_lens, 24, 8);

SIZE(mla_prefill_metadata, 32);
FIELD(mla_prefill_metadata, struct_size, 0, 4);
FIELD(mla_prefill_metadata, num_requests, 4, 4);
FIELD(mla_prefill_metadata, query_start_loc, 8, 8);
FIELD(mla_prefill_metadata, chunks, 16, 8);
FIELD(mla_prefill_metadata, num_chunks, 24, 4);
FIELD(mla_prefill_metadata, reserved, 28, 4);

SIZE(mla_context_plan_args, 40);
FIELD(mla_context_plan_args, struct_size, 0, 4);
FIELD(mla_context_plan_args, num_requests, 4, 4);
FIELD(mla_context_plan_args, context_lens, 8, 8);
FIELD(mla_context_plan_args, query_start_loc, 16, 8);
FIELD(mla_context_plan_args, row_budget, 24, 8);
FIELD(mla_context_plan_args, block_size, 32, 4);
FIELD(mla_context_plan_args, max_context_chunk, 36, 4);

SIZE(mla_context_plan_chunk, 64);
FIELD(mla_context_plan_chunk, struct_size, 0, 4);
FIELD(mla_context_plan_chunk, index, 4, 4);
FIELD(mla_context_plan_chunk, request_begin, 8, 4);
FIELD(mla_context_plan_chunk, request_end, 12, 4);
FIELD(mla_context_plan_chunk, token_begin, 16, 4);
FIELD(mla_context_plan_chunk, token_end, 20, 4);
FIELD(mla_context_plan_chunk, is_continuation, 24, 4);
FIELD(mla_context_plan_chunk, continuation_token_end, 28, 4);
FIELD(mla_context_plan_chunk, starts, 32, 8);
FIELD(mla_context_plan_chunk, seq_lens, 40, 8);
FIELD(mla_context_plan_chunk, query_start_loc, 48, 8);
FIELD(mla_context_plan_chunk, cu_seq_lens, 56, 8);

SIZE(mla_backend_config, 40);
FIELD(mla_backend_config, struct_size, 0, 4);
FIELD(mla_backend_config, num_heads, 4, 4);
FIELD(mla_backend_config, scale, 8, 8);
FIELD(mla_backend_config, kv_lora_rank, 16, 4);
FIELD(mla_backend_config, qk_nope_head_dim, 20, 4);
FIELD(mla_backend_config, qk_rope_head_dim, 24, 4);
FIELD(mla_backend_config, v_head_dim, 28, 4);
FIELD(mla_backend_config, max_isa, 32, 4);
FIELD(mla_backend_config, ignore_override, 36, 4);

SIZE(mla_new_tokens_args, 80);
FIELD(mla_new_tokens_args, struct_size, 0, 4);
FIELD(mla_new_tokens_args, reserved, 4, 4);
FIELD(mla_new_tokens_args, q, 8, 8);
FIELD(mla_new_tokens_args, k, 16, 8);
FIELD(mla_new_tokens_args, v, 24, 8);
FIELD(mla_new_tokens_args, out, 32, 8);
FIELD(mla_new_tokens_args, lse, 40, 8);
FIELD(mla_new_tokens_args, output_scale, 48, 8);
FIELD(mla_new_tokens_args, workspace, 56, 8);
FIELD(mla_new_tokens_args, workspace_size, 64, 8);
FIELD(mla_new_tokens_args, stream, 72, 8);

SIZE(mla_context_chunk_args, 80);
FIELD(mla_context_chunk_args, struct_size, 0, 4);
FIELD(mla_context_chunk_args, reserved, 4, 4);
FIELD(mla_context_chunk_args, chunk, 8, 8);
FIELD(mla_context_chunk_args, q, 16, 8);
FIELD(mla_context_chunk_args, k, 24, 8);
FIELD(mla_context_chunk_args, v, 32, 8);
FIELD(mla_context_chunk_args, out, 40, 8);
FIELD(mla_context_chunk_args, lse, 48, 8);
FIELD(mla_context_chunk_args, workspace, 56, 8);
FIELD(mla_context_chunk_args, workspace_size, 64, 8);
FIELD(mla_context_chunk_args, stream, 72, 8);

SIZE(mla_merge_args, 80);
FIELD(mla_merge_args, struct_size, 0, 4);
FIELD(mla_merge_args, reserved, 4, 4);
FIELD(mla_merge_args, output, 8, 8);
FIELD(mla_merge_args, output_lse, 16, 8);
FIELD(mla_merge_args, prefix_output, 24, 8);
FIELD(mla_merge_args, prefix_lse, 32, 8);
FIELD(mla_merge_args, suffix_output, 40, 8);
FIELD(mla_merge_args, suffix_lse, 48, 8);
FIELD(mla_merge_args, prefill_tokens_with_context, 56, 8);
FIELD(mla_merge_args, output_scale, 64, 8);
FIELD(mla_merge_args, stream, 72, 8);

SIZE(mla_backend_vtable, 104);
FIELD(mla_backend_vtable, struct_size, 0, 4);
FIELD(mla_backend_vtable, reserved, 4, 4);
FIELD(mla_backend_vtable, context, 8, 8);
FIELD(mla_backend_vtable, destroy_context, 16, 8);
FIELD(mla_backend_vtable, backend_name, 24, 8);
FIELD(mla_backend_vtable, validate, 32, 8);
FIELD(mla_backend_vtable, create, 40, 8);
FIELD(mla_backend_vtable, destroy, 48, 8);
FIELD(mla_backend_vtable, prepare_metadata, 56, 8);
FIELD(mla_backend_vtable, run_prefill_new_tokens, 64, 8);
FIELD(mla_backend_vtable, run_prefill_context_chunk, 72, 8);
FIELD(mla_backend_vtable, supports_out, 80, 8);
FIELD(mla_backend_vtable, supports_quant_output, 88, 8);
FIELD(mla_backend_vtable, workspace_size, 96, 8);

SIZE(mla_layer_config, 88);
FIELD(mla_layer_config, struct_size, 0, 4);
FIELD(mla_layer_config, num_heads, 4, 4);
FIELD(mla_layer_config, scale, 8, 8);
FIELD(mla_layer_config, kv_lora_rank, 16, 4);
FIELD(mla_layer_config, qk_nope_head_dim, 20, 4);
FIELD(mla_layer_config, qk_rope_head_dim, 24, 4);
FIELD(mla_layer_config, v_head_dim, 28, 4);
FIELD(mla_layer_config, max_isa, 32, 4);
FIELD(mla_layer_config, dtype, 36, 4);
FIELD(mla_layer_config, backend, 40, 8);
FIELD(mla_layer_config, kv_b_proj, 48, 8);
FIELD(mla_layer_config, cache_dtype, 56, 4);
FIELD(mla_layer_config, cache_scale, 60, 4);
FIELD(mla_layer_config, workspace_bound, 64, 8);
FIELD(mla_layer_config, algorithm, 72, 4);
FIELD(mla_layer_config, cache_format, 76, 4);
FIELD(mla_layer_config, weight_scales, 80, 8);

SIZE(mla_layer_forward_args, 160);
FIELD(mla_layer_forward_args, struct_size, 0, 4);
FIELD(mla_layer_forward_args, num_requests, 4, 4);
FIELD(mla_layer_forward_args, query_start_loc, 8, 8);
FIELD(mla_layer_forward_args, context_lens, 16, 8);
FIELD(mla_layer_forward_args, q, 24, 8);
FIELD(mla_layer_forward_args, kv_c_normed, 32, 8);
FIELD(mla_layer_forward_args, k_pe, 40, 8);
FIELD(mla_layer_forward_args, kv_cache, 48, 8);
FIELD(mla_layer_forward_args, block_table, 56, 8);
FIELD(mla_layer_forward_args, block_table_stride, 64, 8);
FIELD(mla_layer_forward_args, max_blocks, 72, 4);
FIELD(mla_layer_forward_args, reserved, 76, 4);
FIELD(mla_layer_forward_args, out, 80, 8);
FIELD(mla_layer_forward_args, lse, 88, 8);
FIELD(mla_layer_forward_args, workspace, 96, 8);
FIELD(mla_layer_forward_args, workspace_size, 104, 8);
FIELD(mla_layer_forward_args, stream, 112, 8);
FIELD(mla_layer_forward_args, output_scale, 120, 8);
FIELD(mla_layer_forward_args, k_pe_cache, 128, 8);
FIELD(mla_layer_forward_args, context_starts, 136, 8);
FIELD(mla_layer_forward_args, block_table_rows, 144, 8);
FIELD(mla_layer_forward_args, num_table_rows, 152, 8);

SIZE(mla_concat_and_cache_args, 72);
FIELD(mla_concat_and_cache_args, struct_size, 0, 4);
FIELD(mla_concat_and_cache_args, cache_scale, 4, 4);
FIELD(mla_concat_and_cache_args, kv_c_normed, 8, 8);
FIELD(mla_concat_and_cache_args, k_pe, 16, 8);
FIELD(mla_concat_and_cache_args, slot_mapping, 24, 8);
FIELD(mla_concat_and_cache_args, num_slots, 32, 8);
FIELD(mla_concat_and_cache_args, kv_cache, 40, 8);
FIELD(mla_concat_and_cache_args, stream, 48, 8);
FIELD(mla_concat_and_cache_args, cache_format, 56, 4);
FIELD(mla_concat_and_cache_args, reserved, 60, 4);
FIELD(mla_concat_and_cache_args, k_pe_cache, 64, 8);
