// Backend objects and merging.
//
// SPDX-License-Identifier: Apache-2.0
#include "call.hpp"

namespace allocation {
namespace {

/// Large enough for several threads.
const test::Model model{3, 64, 32, 64, 64};

/// A batch of new tokens and a chunk of context, and an object prepared for it.
struct Batch {
  Batch(const char* name, std::int32_t dtype)
      : tokens(test::Attention::new_tokens(model, dtype, {90, 1, 60}, 1)),
        context(test::Attention::context(model, dtype, {90, 1, 60}, {300, 40, 7}, 2)),
        quantized(MLA_DTYPE_FLOAT8_E4M3FN, {151, model.heads, model.v}),
        backend(name, model.config()),
        chunk(context.chunk(0)) {
    metadata.num_requests = 3;
    metadata.query_start_loc = tokens.q_loc.data();
    metadata.chunks = &chunk;
    metadata.num_chunks = 1;
    mla::check(prepare());
    new_tokens.q = &tokens.q.view();
    new_tokens.k = &tokens.k.view();
    new_tokens.v = &tokens.v.view();
    new_tokens.out = &tokens.out.view();
    new_tokens.lse = &tokens.lse.view();
    in_fp8 = new_tokens;
    in_fp8.out = &quantized.view();
    in_fp8.output_scale = &scale;
    with_chunk.chunk = &chunk;
    with_chunk.q = &context.q.view();
    with_chunk.k = &context.k.view();
    with_chunk.v = &context.v.view();
    with_chunk.out = &context.out.view();
    with_chunk.lse = &context.lse.view();
    mla::check(run_chunk());
    chunk_result = context.out.bytes();
  }

  mla_status prepare() { return mla_prepare_metadata(backend.get(), &metadata); }
  mla_status run_chunk() { return mla_run_prefill_context_chunk(backend.get(), &with_chunk); }

  std::vector<Output> outputs_of(test::Attention& run) {
    return {elements_of(run.out), elements_of(run.lse)};
  }

  test::Attention tokens, context;
  test::Array quantized;
  std::vector<std::uint8_t> chunk_result;
  mla::backend backend;
  mla_context_chunk chunk;
  mla_prefill_metadata metadata = MLA_PREFILL_METADATA_INIT;
  mla_new_tokens_args new_tokens = MLA_NEW_TOKENS_ARGS_INIT, in_fp8 = MLA_NEW_TOKENS_ARGS_INIT;
  mla_context_chunk_args with_chunk = MLA_CONTEXT_CHUNK_ARGS_INIT;
  float scale = 0.25F;
  std::int64_t bytes = 0;
  std::int32_t supports = 0;
  mla_backend* made = nullptr;
};

/// Calls on an object: as a batch's first, which makes its plan, and as a later one.
void add_runs(std::vector<Call>& calls, Batch& batch, const std::string& name) {
  auto add = [&](const char* function, std::function<mla_status()> call,
                 std::vector<Output> outputs) {
    for (const bool is_first : {true, false}) {
      Call made;
      made.name = name + " " + function + (is_first ? ", first" : "");
      made.call = call;
      made.outputs = outputs;
      if (is_first) made.before = [&batch] { mla::check(batch.prepare()); };
      calls.push_back(made);
    }
  };
  add("mla_run_prefill_new_tokens",
      [&] { return mla_run_prefill_new_tokens(batch.backend.get(), &batch.new_tokens); },
      batch.outputs_of(batch.tokens));
  add("mla_run_prefill_context_chunk",
      [&] { return batch.run_chunk(); },
      batch.outputs_of(batch.context));
  add("mla_workspace_size", [&] { return mla_workspace_size(batch.backend.get(), &batch.bytes); },
      {value_of(batch.bytes)});
  add("mla_warm_up", [&] { return mla_warm_up(batch.backend.get()); }, {});
  add("mla_supports_out", [&] { return mla_supports_out(batch.backend.get(), &batch.supports); },
      {value_of(batch.supports)});
}

void add_object(std::vector<Call>& calls, Batch& batch, const std::string& name) {
  Call made;
  made.outputs = {handle_of(batch.made)};
  made.undo = [&batch] { mla_backend_destroy(batch.made); };
  made.name = name + " mla_backend_create";
  static const mla_backend_config config = model.config();
  made.call = [&batch, name] { return mla_backend_create(name.c_str(), &config, &batch.made); };
  calls.push_back(made);
  made.name = name + " mla_backend_clone";
  made.call = [&batch] { return mla_backend_clone(batch.backend.get(), &batch.made); };
  calls.push_back(made);
  Call prepare;
  static const std::int32_t three_tokens[] = {0, 3};
  static const auto other = [] {
    mla_prefill_metadata metadata = MLA_PREFILL_METADATA_INIT;
    metadata.num_requests = 1;
    metadata.query_start_loc = three_tokens;
    return metadata;
  }();
  prepare.name = name + " mla_prepare_metadata";
  prepare.before = [&batch] { mla::check(batch.prepare()); };
  prepare.call = [&batch] { return mla_prepare_metadata(batch.backend.get(), &other); };
  // Either batch, whole: the other one has no chunk.
  prepare.holds = [&batch](mla_status status) {
    const mla_status expected = status == MLA_OK ? MLA_ERROR_INVALID_ARGUMENT : MLA_OK;
    return batch.run_chunk() == expected &&
           (status == MLA_OK || batch.context.out.bytes() == batch.chunk_result);
  };
  prepare.undo = [&batch] { mla::check(batch.prepare()); };
  calls.push_back(prepare);
}

void add_merge(std::vector<Call>& calls, Batch& batch) {
  auto& args = kept<mla_merge_args>();
  args = MLA_MERGE_ARGS_INIT;
  args.output = &batch.tokens.out.view();
  args.output_lse = &batch.tokens.lse.view();
  auto& other = kept<test::Attention>(batch.tokens);
  other.run_prepared(batch.backend);
  args.prefix_output = args.suffix_output = &other.out.view();
  args.prefix_lse = args.suffix_lse = &other.lse.view();
  Call made;
  made.name = "mla_merge_attn_states";
  made.call = [&] { return mla_merge_attn_states(&args); };
  made.outputs = batch.outputs_of(batch.tokens);
  calls.push_back(made);
}

}  // namespace

std::vector<Call> backend_calls() {
  std::vector<Call> calls;
  for (const char* name : {"CPU", "FLASHINFER", "TOKENSPEED_MLA", "CUSTOM"}) {
    auto& batch = kept<Batch>(name, MLA_DTYPE_BFLOAT16);
    add_object(calls, batch, name);
    add_runs(calls, batch, name);
    if (std::strcmp(name, "CPU") != 0) continue;
    add_merge(calls, batch);
    Call quantized;
    quantized.name = "mla_run_prefill_new_tokens into fp8";
    quantized.call = [&] { return mla_run_prefill_new_tokens(batch.backend.get(), &batch.in_fp8); };
    quantized.outputs = {elements_of(batch.quantized), elements_of(batch.tokens.lse)};
    calls.push_back(quantized);
  }
  return calls;
}

}  // namespace allocation
