/*
 * ABI version 1, as abi_layout.c has it: caches.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "abi_assertions.h"
#include "mla_prefill.h"

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

SIZE(mla_gather_cache_args, 96);
FIELD(mla_gather_cache_args, struct_size, 0, 4);
FIELD(mla_gather_cache_args, cache_scale, 4, 4);
FIELD(mla_gather_cache_args, kv_cache, 8, 8);
FIELD(mla_gather_cache_args, k_pe_cache, 16, 8);
FIELD(mla_gather_cache_args, cache_format, 24, 4);
FIELD(mla_gather_cache_args, num_requests, 28, 4);
FIELD(mla_gather_cache_args, block_table, 32, 8);
FIELD(mla_gather_cache_args, block_table_stride, 40, 8);
FIELD(mla_gather_cache_args, max_blocks, 48, 4);
FIELD(mla_gather_cache_args, reserved, 52, 4);
FIELD(mla_gather_cache_args, cu_seq_lens, 56, 8);
FIELD(mla_gather_cache_args, seq_starts, 64, 8);
FIELD(mla_gather_cache_args, dst, 72, 8);
FIELD(mla_gather_cache_args, k_pe, 80, 8);
FIELD(mla_gather_cache_args, stream, 88, 8);
