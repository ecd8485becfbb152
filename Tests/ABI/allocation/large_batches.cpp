// Batches as large as they may be, of little work each.
//
// SPDX-License-Identifier: Apache-2.0
#include "call.hpp"

namespace allocation {
namespace {

constexpr std::int32_t requests = 1 << 20;
constexpr std::int64_t dim = 8, block_size = 16;
const test::Model model{1, dim, 0, dim, dim};

/// One new token and one in the cache for each request.
struct Batch {
  Batch()
      : rows(MLA_DTYPE_FLOAT32, {requests, 1, dim}),
        out(MLA_DTYPE_FLOAT32, {requests, 1, dim}),
        latents(MLA_DTYPE_FLOAT32, {requests, dim}),
        cache(MLA_DTYPE_FLOAT32, {requests / block_size, block_size, dim}),
        weights(MLA_DTYPE_FLOAT32, {2 * dim, dim}),
        of_heads(MLA_DTYPE_FLOAT32, {requests, 1}),
        offsets(requests + 1),
        ones(requests, 1),
        blocks(requests, 0),
        selected(requests) {
    std::memset(rows.view().data, 0, rows.bytes().size());
    std::memset(latents.view().data, 0, latents.bytes().size());
    std::memset(cache.view().data, 0, cache.bytes().size());
    std::memset(weights.view().data, 0, weights.bytes().size());
    for (std::int32_t i = 0; i <= requests; ++i) offsets[static_cast<std::size_t>(i)] = i;
    // Nowhere in order.
    for (std::int64_t i = 0; i < requests; ++i) slots.push_back(i * 65537 % requests);
  }

  mla_layer* layer(const char* backend) {
    mla_layer_config config = MLA_LAYER_CONFIG_INIT;
    mla_layer* made = nullptr;
    config.num_heads = model.heads;
    config.scale = 1;
    config.kv_lora_rank = config.qk_nope_head_dim = config.v_head_dim = dim;
    config.backend = backend;
    config.kv_b_proj = &weights.view();
    mla::check(mla_layer_create(&config, &made));
    return made;
  }

  mla_layer_forward_args forward() {
    mla_layer_forward_args args = MLA_LAYER_FORWARD_ARGS_INIT;
    args.num_requests = requests;
    args.query_start_loc = offsets.data();
    args.context_lens = ones.data();
    args.q = &rows.view();
    args.kv_c_normed = &latents.view();
    args.kv_cache = &cache.view();
    args.block_table = blocks.data();
    args.block_table_stride = args.max_blocks = 1;
    args.out = &out.view();
    return args;
  }

  test::Array rows, out, latents, cache, weights, of_heads;
  test::Offsets offsets, ones, blocks, selected;
  std::vector<std::int64_t> slots;
};

void add(std::vector<Call>& calls, const char* name, std::function<mla_status()> call) {
  Call made;
  made.name = std::string(name) + " of 2^20 requests";
  made.call = std::move(call);
  calls.push_back(made);
}

void add_runs(std::vector<Call>& calls, Batch& batch) {
  for (const char* name : {"CPU", "FLASHINFER"}) {
    auto& backend = kept<mla::backend>(name, model.config());
    add(calls, "mla_prepare_metadata", [&] {
      mla_prefill_metadata metadata = MLA_PREFILL_METADATA_INIT;
      metadata.num_requests = requests;
      metadata.query_start_loc = batch.offsets.data();
      return mla_prepare_metadata(backend.get(), &metadata);
    });
    add(calls, "mla_workspace_size", [&] {
      std::int64_t bytes = 0;
      return mla_workspace_size(backend.get(), &bytes);
    });
    add(calls, "mla_run_prefill_new_tokens", [&] {
      mla_new_tokens_args args = MLA_NEW_TOKENS_ARGS_INIT;
      args.q = args.k = args.v = &batch.rows.view();
      args.out = &batch.out.view();
      return mla_run_prefill_new_tokens(backend.get(), &args);
    });
  }
}

}  // namespace

std::vector<Call> large_batch_calls() {
  auto& batch = kept<Batch>();
  std::vector<Call> calls;
  add_runs(calls, batch);
  add(calls, "mla_plan_context_chunks", [&] {
    mla_context_plan_args args = MLA_CONTEXT_PLAN_ARGS_INIT;
    mla_context_plan* plan = nullptr;
    args.num_requests = requests;
    args.context_lens = batch.ones.data();
    args.query_start_loc = batch.offsets.data();
    args.row_budget = 2;
    const mla_status status = mla_plan_context_chunks(&args, &plan);
    mla_context_plan_destroy(plan);
    return status;
  });
  add(calls, "mla_concat_and_cache_mla", [&] {
    mla_concat_and_cache_args args = MLA_CONCAT_AND_CACHE_ARGS_INIT;
    args.kv_c_normed = &batch.latents.view();
    args.slot_mapping = batch.slots.data();
    args.num_slots = requests;
    args.kv_cache = &batch.cache.view();
    return mla_concat_and_cache_mla(&args);
  });
  add(calls, "mla_gather_and_maybe_dequant_cache", [&] {
    mla_gather_cache_args args = MLA_GATHER_CACHE_ARGS_INIT;
    args.kv_cache = &batch.cache.view();
    args.num_requests = requests;
    args.block_table = batch.blocks.data();
    args.block_table_stride = args.max_blocks = 1;
    args.cu_seq_lens = batch.offsets.data();
    args.dst = &batch.latents.view();
    return mla_gather_and_maybe_dequant_cache(&args);
  });
  // Of each request the token before its new one alone.
  add(calls, "mla_index_select", [&] {
    mla_index_select_args args = MLA_INDEX_SELECT_ARGS_INIT;
    args.num_requests = requests;
    args.query_start_loc = batch.offsets.data();
    args.visible_keys = batch.ones.data();
    args.q = &batch.rows.view();
    args.weights = &batch.of_heads.view();
    args.topk = 1;
    args.index_cache = &batch.cache.view();
    args.block_table = batch.blocks.data();
    args.block_table_stride = args.max_blocks = 1;
    args.topk_indices = batch.selected.data();
    args.topk_stride = 1;
    return mla_index_select(&args);
  });
  add(calls, "mla_attention", [&] {
    mla_attention_args args = MLA_ATTENTION_ARGS_INIT;
    args.q = args.k = args.v = &batch.rows.view();
    args.out = &batch.out.view();
    args.num_requests = requests;
    args.cu_seqlens_q = batch.offsets.data();
    return mla_attention(&args);
  });
  for (const char* name : {"CPU", "CUSTOM"}) {
    mla_layer* const& layer = kept<mla_layer*>(batch.layer(name));
    add(calls, "mla_layer_workspace_size", [&] {
      const mla_layer_forward_args args = batch.forward();
      std::int64_t bytes = 0;
      return mla_layer_workspace_size(layer, &args, &bytes);
    });
    add(calls, "mla_layer_forward", [&] {
      const mla_layer_forward_args args = batch.forward();
      return mla_layer_forward(layer, &args);
    });
  }
  return calls;
}

}  // namespace allocation
