/*
 * ABI version 1, as abi_layout.c has it: attention in one call.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "abi_assertions.h"
#include "mla_prefill.h"

VALUE(MLA_CAUSAL_NONE, 0);
VALUE(MLA_CAUSAL_START, 1);
VALUE(MLA_CAUSAL_END, 2);

SIZE(mla_attention_args, 128);
FIELD(mla_attention_args, struct_size, 0, 4);
FIELD(mla_attention_args, causal, 4, 4);
FIELD(mla_attention_args, scale, 8, 8);
FIELD(mla_attention_args, q, 16, 8);
FIELD(mla_attention_args, k, 24, 8);
FIELD(mla_attention_args, v, 32, 8);
FIELD(mla_attention_args, out, 40, 8);
FIELD(mla_attention_args, lse, 48, 8);
FIELD(mla_attention_args, num_requests, 56, 4);
FIELD(mla_attention_args, max_isa, 60, 4);
FIELD(mla_attention_args, cu_seqlens_q, 64, 8);
FIELD(mla_attention_args, cu_seqlens_k, 72, 8);
FIELD(mla_attention_args, k_begin, 80, 8);
FIELD(mla_attention_args, k_count, 88, 8);
FIELD(mla_attention_args, workspace, 96, 8);
FIELD(mla_attention_args, workspace_size, 104, 8);
FIELD(mla_attention_args, stream, 112, 8);
FIELD(mla_attention_args, output_scale, 120, 8);
