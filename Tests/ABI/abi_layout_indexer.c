/*
 * ABI version 1, as abi_layout.c has it: the lightning indexer.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "abi_assertions.h"
#include "mla_prefill.h"

VALUE(MLA_INDEX_FORMAT_PLAIN, 0);
VALUE(MLA_INDEX_FORMAT_FP8_BLOCK, 1);
VALUE(MLA_INDEX_SCALE_FP32, 0);
VALUE(MLA_INDEX_SCALE_POWER_OF_TWO, 1);

SIZE(mla_index_store_args, 56);
FIELD(mla_index_store_args, struct_size, 0, 4);
FIELD(mla_index_store_args, format, 4, 4);
FIELD(mla_index_store_args, scale_format, 8, 4);
FIELD(mla_index_store_args, hadamard, 12, 4);
FIELD(mla_index_store_args, k, 16, 8);
FIELD(mla_index_store_args, slot_mapping, 24, 8);
FIELD(mla_index_store_args, num_slots, 32, 8);
FIELD(mla_index_store_args, index_cache, 40, 8);
FIELD(mla_index_store_args, stream, 48, 8);

SIZE(mla_index_select_args, 168);
FIELD(mla_index_select_args, struct_size, 0, 4);
FIELD(mla_index_select_args, num_requests, 4, 4);
FIELD(mla_index_select_args, query_start_loc, 8, 8);
FIELD(mla_index_select_args, context_lens, 16, 8);
FIELD(mla_index_select_args, visible_keys, 24, 8);
FIELD(mla_index_select_args, q, 32, 8);
FIELD(mla_index_select_args, weights, 40, 8);
FIELD(mla_index_select_args, format, 48, 4);
FIELD(mla_index_select_args, topk, 52, 4);
FIELD(mla_index_select_args, quantize_q, 56, 4);
FIELD(mla_index_select_args, scale_format, 60, 4);
FIELD(mla_index_select_args, hadamard, 64, 4);
FIELD(mla_index_select_args, max_blocks, 68, 4);
FIELD(mla_index_select_args, index_cache, 72, 8);
FIELD(mla_index_select_args, block_table, 80, 8);
FIELD(mla_index_select_args, block_table_stride, 88, 8);
FIELD(mla_index_select_args, first_row, 96, 8);
FIELD(mla_index_select_args, num_rows, 104, 8);
FIELD(mla_index_select_args, topk_indices, 112, 8);
FIELD(mla_index_select_args, topk_stride, 120, 8);
FIELD(mla_index_select_args, scores, 128, 8);
FIELD(mla_index_select_args, workspace, 136, 8);
FIELD(mla_index_select_args, workspace_size, 144, 8);
FIELD(mla_index_select_args, stream, 152, 8);
FIELD(mla_index_select_args, max_isa, 160, 4);
FIELD(mla_index_select_args, reserved, 164, 4);
