// Large batches where there is little memory: each call gives its result, or
// MLA_ERROR_OUT_OF_MEMORY and a message with its outputs untouched, and the object
// works as soon as there is memory.
//
// SPDX-License-Identifier: Apache-2.0
#include <malloc.h>

#include <algorithm>
#include <functional>

#include "address_space.hpp"
#include "support.hpp"

namespace {

constexpr std::int32_t most_requests = 1 << 20;

/// A call that writes `outputs`, floats if any.
struct Call {
  std::function<mla_status()> body;
  std::vector<std::vector<float>*> outputs = {};
};

/// At every limit up to the one that is enough, and then without one.
void each_limit(const Call& call) {
  int refused = 0;
  for (unsigned megabytes : {0U, 1U, 2U, 4U, 8U, 16U, 24U, 32U, 40U, 60U, 80U, 120U, 200U, 400U, 1000U}) {
    for (std::vector<float>* output : call.outputs) std::fill(output->begin(), output->end(), 42.0F);
    mla_status status = MLA_OK;
    // What runs before have kept is not to serve this one.
    mla::check(mla_trim(nullptr));
    {
      const test::LimitedAddressSpace limited(std::uint64_t{megabytes} << 20);
      status = call.body();
    }
    if (status == MLA_OK) break;
    ++refused;
    const int limit = static_cast<int>(megabytes);
    EXPECT(status == MLA_ERROR_OUT_OF_MEMORY, "%d MiB: status %d, %s", limit, status,
           mla_last_error_message());
    EXPECT(*mla_last_error_message() != '\0', "%d MiB: no message", limit);
    for (std::vector<float>* output : call.outputs) {
      EXPECT(std::all_of(output->begin(), output->end(), [](float x) { return x == 42.0F; }),
             "%d MiB: an output was touched", limit);
    }
  }
  if (test::address_space_has_limits) EXPECT(refused > 0, "no limit was met");
  EXPECT(call.body() == MLA_OK, "afterwards: %s", mla_last_error_message());
}

mla_tensor tensor(std::vector<float>& data, std::vector<std::int64_t> shape) {
  mla_tensor made = MLA_TENSOR_INIT;
  made.dtype = MLA_DTYPE_FLOAT32;
  made.data = data.data();
  made.ndim = static_cast<std::int32_t>(shape.size());
  std::int64_t stride = 1;
  for (std::size_t i = shape.size(); i-- > 0; stride *= shape[i]) {
    made.shape[i] = shape[i];
    made.strides[i] = stride;
  }
  return made;
}

/// One token a request, of two heads.
struct Batch {
  static constexpr std::int64_t tokens = most_requests;
  const test::Model model{2, 4, 0, 4, 4};
  const std::vector<std::int32_t> rows = test::numbered<std::int32_t>(most_requests + 1);
  std::vector<float> q = std::vector<float>(tokens * 8, 0.5F), out = q;
  std::vector<float> lse = std::vector<float>(tokens * 2);
  mla_tensor q_view = tensor(q, {tokens, 2, 4}), out_view = tensor(out, {tokens, 2, 4}),
             lse_view = tensor(lse, {2, tokens});
};

void backends() {
  Batch batch;
  for (const char* name : {"FLASHINFER", "CPU"}) {
    mla::backend backend(name, batch.model.config());
    mla_context_chunk chunk = MLA_CONTEXT_CHUNK_INIT;
    chunk.num_requests = most_requests;
    chunk.query_start_loc = chunk.cu_seq_lens = batch.rows.data();
    mla_prefill_metadata metadata = MLA_PREFILL_METADATA_INIT;
    metadata.num_requests = most_requests;
    metadata.query_start_loc = batch.rows.data();
    metadata.chunks = &chunk;
    metadata.num_chunks = 1;
    const auto prepare = [&] { return mla_prepare_metadata(backend.get(), &metadata); };
    std::int64_t bytes = 0;
    each_limit({prepare});
    each_limit({[&] { return mla_workspace_size(backend.get(), &bytes); }});
    mla_new_tokens_args fresh = MLA_NEW_TOKENS_ARGS_INIT;
    fresh.q = fresh.k = fresh.v = &batch.q_view;
    fresh.out = &batch.out_view;
    fresh.lse = &batch.lse_view;
    mla_context_chunk_args context = MLA_CONTEXT_CHUNK_ARGS_INIT;
    context.chunk = &chunk;
    context.q = context.k = context.v = &batch.q_view;
    context.out = &batch.out_view;
    context.lse = &batch.lse_view;
    // What a run finds out about a batch is kept: each begins anew. Planning ahead is
    // as short of memory as the run would be.
    each_limit({[&] {
                  const mla_status status = prepare();
                  return status ? status : mla_run_prefill_new_tokens(backend.get(), &fresh);
                },
                {&batch.out, &batch.lse}});
    each_limit({[&] {
                  const mla_status status = prepare();
                  return status ? status : mla_run_prefill_context_chunk(backend.get(), &context);
                },
                {&batch.out, &batch.lse}});
  }
}

/// Runs nothing: what a layer takes for a registered backend is what is looked at.
void register_silent_backend() {
  mla_backend_vtable silent = MLA_BACKEND_VTABLE_INIT;
  silent.create = [](void*, const mla_backend_config*, void**) { return mla_status{MLA_OK}; };
  silent.run_prefill_new_tokens = [](void*, void*, const mla_new_tokens_args*) {
    return mla_status{MLA_OK};
  };
  silent.run_prefill_context_chunk = [](void*, void*, const mla_context_chunk_args*) {
    return mla_status{MLA_OK};
  };
  mla_backend_registration registration = MLA_BACKEND_REGISTRATION_INIT;
  registration.vtable = &silent;
  mla::check(mla_register_backend("SILENT", &registration));
}

void layers() {
  Batch batch;
  std::vector<float> weights(2 * 8 * 4, 0.25F), latents(Batch::tokens * 4, 0.5F), cache(64 * 16 * 4);
  const mla_tensor weights_view = tensor(weights, {16, 4}),
                   latents_view = tensor(latents, {Batch::tokens, 4}),
                   cache_view = tensor(cache, {64, 16, 4});
  const std::vector<std::int32_t> contexts(most_requests, 20),
      table(std::size_t{2} * most_requests, 7);
  const struct {
    const char* backend;
    std::int32_t algorithm;
  } paths[] = {{"CPU", MLA_LAYER_ALGORITHM_UP_PROJECTED},
               {"CPU", MLA_LAYER_ALGORITHM_ABSORBED},
               {"SILENT", MLA_LAYER_ALGORITHM_AUTO}};
  register_silent_backend();
  for (const auto& path : paths) {
    mla_layer_config config = MLA_LAYER_CONFIG_INIT;
    config.num_heads = 2;
    config.scale = 1;
    config.kv_lora_rank = config.qk_nope_head_dim = config.v_head_dim = 4;
    config.backend = path.backend;
    config.kv_b_proj = &weights_view;
    config.algorithm = path.algorithm;
    mla_layer* layer = nullptr;
    mla::check(mla_layer_create(&config, &layer));
    mla_layer_forward_args args = MLA_LAYER_FORWARD_ARGS_INIT;
    args.num_requests = most_requests;
    args.query_start_loc = batch.rows.data();
    args.context_lens = contexts.data();
    args.q = &batch.q_view;
    args.kv_c_normed = &latents_view;
    args.kv_cache = &cache_view;
    args.block_table = table.data();
    args.block_table_stride = args.max_blocks = 2;
    args.out = &batch.out_view;
    args.lse = &batch.lse_view;
    std::int64_t bytes = 0;
    each_limit({[&] { return mla_layer_workspace_size(layer, &args, &bytes); }});
    each_limit({[&] { return mla_layer_forward(layer, &args); }, {&batch.out, &batch.lse}});
    mla_layer_destroy(layer);
  }
  mla::check(mla_remove_backend("SILENT"));
}

/// Neighbouring slots, and every second one behind its neighbour, so that what has been
/// met must be looked up.
void slots() {
  constexpr std::int64_t count = 1 << 22;
  std::vector<float> latents(count * 2, 0.5F), cache(count * 2);
  std::vector<std::int64_t> mapping(count);
  const mla_tensor latents_view = tensor(latents, {count, 2}),
                   cache_view = tensor(cache, {count / 16, 16, 2});
  mla_concat_and_cache_args args = MLA_CONCAT_AND_CACHE_ARGS_INIT;
  args.kv_c_normed = &latents_view;
  args.kv_cache = &cache_view;
  args.slot_mapping = mapping.data();
  args.num_slots = count;
  for (std::int64_t turned : {0, 1 << 20}) {
    for (std::int64_t i = 0; i < count; ++i) mapping[static_cast<std::size_t>(i)] = i ^ turned;
    each_limit({[&] { return mla_concat_and_cache_mla(&args); }, {&cache}});
  }
}

/// A token of each request, all of one block.
void gathered_tokens() {
  std::vector<float> cache(32, 0.5F), rows(most_requests * 2);
  const std::vector<std::int32_t> offsets = test::numbered<std::int32_t>(most_requests + 1), table(most_requests);
  const mla_tensor cache_view = tensor(cache, {1, 16, 2}), rows_view = tensor(rows, {most_requests, 2});
  mla_gather_cache_args args = MLA_GATHER_CACHE_ARGS_INIT;
  args.kv_cache = &cache_view;
  args.num_requests = most_requests;
  args.block_table = table.data();
  args.block_table_stride = args.max_blocks = 1;
  args.cu_seq_lens = offsets.data();
  args.dst = &rows_view;
  each_limit({[&] { return mla_gather_and_maybe_dequant_cache(&args); }, {&rows}});
  CHECK(rows.back() == 0.5F);
}

/// The one key of each request.
void selected_keys() {
  std::vector<float> cache(32, 0.5F), rows(most_requests * 2, 1.0F), weights(most_requests, 1.0F);
  std::vector<float> scores(most_requests);
  std::vector<std::int32_t> indices(most_requests);
  const std::vector<std::int32_t> offsets = test::numbered<std::int32_t>(most_requests + 1), table(most_requests);
  const mla_tensor cache_view = tensor(cache, {1, 16, 2}), q = tensor(rows, {most_requests, 1, 2}),
                   of_heads = tensor(weights, {most_requests, 1}), scores_view = tensor(scores, {most_requests, 1});
  mla_index_select_args args = MLA_INDEX_SELECT_ARGS_INIT;
  args.num_requests = most_requests;
  args.query_start_loc = offsets.data();
  args.q = &q;
  args.weights = &of_heads;
  args.topk = 1;
  args.index_cache = &cache_view;
  args.block_table = table.data();
  args.block_table_stride = args.max_blocks = 1;
  args.topk_indices = indices.data();
  args.topk_stride = 1;
  args.scores = &scores_view;
  each_limit({[&] { return mla_index_select(&args); }, {&scores}});
  CHECK(scores.back() == 1.0F);
}

void context_plans() {
  const struct {
    std::int32_t requests, context, budget, chunks;
  } plans[] = {{20000, 1000, 64, 20000 * 16 - 7500}, {most_requests, 5, 1 << 20, 5}};
  for (const auto& each : plans) {
    const std::vector<std::int32_t> contexts(static_cast<std::size_t>(each.requests), each.context),
        rows = test::numbered<std::int32_t>(each.requests + 1);
    mla_context_plan_args args = MLA_CONTEXT_PLAN_ARGS_INIT;
    args.num_requests = each.requests;
    args.context_lens = contexts.data();
    args.query_start_loc = rows.data();
    args.row_budget = each.budget;
    each_limit({[&] {
      mla_context_plan* plan = nullptr;
      const mla_status status = mla_plan_context_chunks(&args, &plan);
      EXPECT(status ? plan == nullptr : mla_context_plan_num_chunks(plan) == each.chunks,
             "%d chunks", mla_context_plan_num_chunks(plan));
      mla_context_plan_destroy(plan);
      return status;
    }});
  }
}

}  // namespace

int main(int argc, char** argv) {
  // What a large vector leaves behind is not to serve the next call.
  mallopt(M_MMAP_THRESHOLD, 1 << 17);
  return test::run(argc, argv,
                   {{"short memory context plans", context_plans},
                    {"short memory slots", slots},
                    {"short memory gathered tokens", gathered_tokens},
                    {"short memory selected keys", selected_keys},
                    {"short memory backends", backends},
                    {"short memory layers", layers}});
}
