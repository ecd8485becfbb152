// The whole layer.
//
// SPDX-License-Identifier: Apache-2.0
#include "call.hpp"

namespace allocation {
namespace {

constexpr std::int64_t tokens = 70, blocks = 60, block_size = 16, table_width = 30, slot_bytes = 656;
const std::int32_t query_start_loc[] = {0, 64, 70}, context_lens[] = {90, 400};
const std::int32_t context_starts[] = {3, 30}, block_table_rows[] = {1, 0};
const std::int32_t cu_seq_lens[] = {0, 90, 490};
constexpr std::int64_t gathered_rows = 490;

/// A kind of layer: what its cache holds and how it works.
struct Kind {
  const char* name;
  std::int32_t cache_dtype, cache_format, algorithm;
  const char* backend;
  bool quantized_weights;
  /// Whether rotary keys have a tensor of their own, contexts padding and rows numbers.
  bool two_tensors;
  /// Whether tokens attend to some keys, all of which are in the cache.
  bool selected = false;
};

struct Layer {
  explicit Layer(const Kind& of_kind)
      : kind(of_kind),
        model{2, 64, 64, 64, 512},
        weights(kind.quantized_weights ? MLA_DTYPE_FLOAT8_E4M3FN : MLA_DTYPE_BFLOAT16,
                {model.heads * (model.nope + model.v), model.rank}),
        scales(MLA_DTYPE_FLOAT32, {2, 4}),
        q(MLA_DTYPE_BFLOAT16, {tokens, model.heads, model.qk()}),
        latents(MLA_DTYPE_BFLOAT16, {tokens, model.rank}),
        k_pe(MLA_DTYPE_BFLOAT16, {tokens, model.rope}),
        cache(kind.cache_dtype, {blocks, block_size, slot_width()}),
        rope_cache(kind.cache_dtype, {blocks, block_size, model.rope}),
        out(MLA_DTYPE_BFLOAT16, {tokens, model.heads, model.v}),
        lse(MLA_DTYPE_FLOAT32, {model.heads, tokens}),
        gathered(MLA_DTYPE_BFLOAT16, {gathered_rows, model.rank + model.rope}) {
    std::mt19937 random(1);
    for (test::Array* input : {&weights, &q, &latents, &k_pe}) input->fill(random, 0.2);
    scales.each([&](std::int64_t i, std::int64_t j, std::int64_t) { scales.set(i, j, 0, 0.5); });
    for (test::Array* stored : {&cache, &rope_cache}) std::memset(stored->view().data, 0, stored->bytes().size());
    for (std::int32_t i = 0; i < 2 * table_width; ++i) block_table.push_back(i * 7 % blocks);
    for (std::int64_t i = 0; i < tokens; ++i) slots.push_back(i % 5 == 4 ? -1 : i * 11 % 64);
    describe();
    mla::check(mla_layer_create(&config, &layer));
    mla::check(mla_concat_and_cache_mla(&concat));
  }
  Layer(const Layer&) = delete;
  ~Layer() { mla_layer_destroy(layer); }

  bool is_plain() const { return kind.cache_format == MLA_CACHE_FORMAT_PLAIN; }
  std::int64_t slot_width() const {
    return kind.two_tensors ? model.rank : is_plain() ? model.rank + model.rope : slot_bytes;
  }

  void describe() {
    const float scale = is_plain() && kind.cache_dtype == MLA_DTYPE_FLOAT8_E4M3FN ? 0.5F : 0.0F;
    config = model.layer_config(weights.view());
    config.dtype = MLA_DTYPE_BFLOAT16;
    config.backend = kind.backend;
    if (kind.quantized_weights) config.weight_scales = &scales.view();
    config.cache_dtype = kind.cache_dtype;
    config.cache_scale = scale;
    config.cache_format = kind.cache_format;
    config.algorithm = kind.algorithm;
    forward.num_requests = 2;
    forward.query_start_loc = query_start_loc;
    forward.context_lens = context_lens;
    forward.q = &q.view();
    forward.kv_c_normed = concat.kv_c_normed = &latents.view();
    forward.k_pe = concat.k_pe = &k_pe.view();
    forward.kv_cache = concat.kv_cache = &cache.view();
    forward.block_table = block_table.data();
    forward.block_table_stride = forward.max_blocks = table_width;
    forward.out = &out.view();
    forward.lse = &lse.view();
    concat.slot_mapping = slots.data();
    concat.num_slots = tokens;
    concat.cache_scale = scale;
    concat.cache_format = kind.cache_format;
    gather.cache_scale = scale;
    gather.cache_format = kind.cache_format;
    gather.kv_cache = &cache.view();
    gather.num_requests = 2;
    gather.block_table = block_table.data();
    gather.block_table_stride = gather.max_blocks = table_width;
    gather.cu_seq_lens = cu_seq_lens;
    gather.dst = &gathered.view();
    if (kind.selected) select();
    if (!kind.two_tensors) return;
    gather.k_pe_cache = &rope_cache.view();
    gather.seq_starts = context_starts;
    forward.k_pe_cache = concat.k_pe_cache = &rope_cache.view();
    forward.context_starts = context_starts;
    forward.block_table_rows = block_table_rows;
    forward.num_table_rows = 2;
  }

  void select() {
    for (std::int32_t token = 0; token < tokens; ++token) {
      for (std::int32_t i = 0; i < topk; ++i) topk_indices.push_back(token * i % 90);
    }
    forward.topk_indices = topk_indices.data();
    forward.topk_stride = forward.topk = topk;
    forward.new_tokens_cached = 1;
    forward.kv_c_normed = forward.k_pe = nullptr;
  }

  static constexpr std::int32_t topk = 80;

  Kind kind;
  test::Model model;
  test::Array weights, scales, q, latents, k_pe, cache, rope_cache, out, lse, gathered;
  test::Offsets block_table, topk_indices;
  std::vector<std::int64_t> slots;
  mla_layer_config config = MLA_LAYER_CONFIG_INIT;
  mla_layer_forward_args forward = MLA_LAYER_FORWARD_ARGS_INIT;
  mla_concat_and_cache_args concat = MLA_CONCAT_AND_CACHE_ARGS_INIT;
  mla_gather_cache_args gather = MLA_GATHER_CACHE_ARGS_INIT;
  mla_layer *layer = nullptr, *made = nullptr;
  std::int64_t bytes = 0;
};

}  // namespace

std::vector<Call> layer_calls() {
  const Kind kinds[] = {
      {"plain", MLA_DTYPE_BFLOAT16, MLA_CACHE_FORMAT_PLAIN, MLA_LAYER_ALGORITHM_UP_PROJECTED,
       "CPU", false, false},
      {"fp8", MLA_DTYPE_FLOAT8_E4M3FN, MLA_CACHE_FORMAT_PLAIN, MLA_LAYER_ALGORITHM_ABSORBED,
       "FLASHINFER", true, false},
      {"fp8_ds_mla", MLA_DTYPE_FLOAT8_E4M3FN, MLA_CACHE_FORMAT_FP8_DS_MLA,
       MLA_LAYER_ALGORITHM_AUTO, nullptr, false, false},
      {"two tensors", MLA_DTYPE_FLOAT8_E4M3FN, MLA_CACHE_FORMAT_PLAIN, MLA_LAYER_ALGORITHM_AUTO,
       nullptr, false, true},
      {"selected keys", MLA_DTYPE_BFLOAT16, MLA_CACHE_FORMAT_PLAIN, MLA_LAYER_ALGORITHM_AUTO,
       nullptr, false, false, true},
      {"registered", MLA_DTYPE_BFLOAT16, MLA_CACHE_FORMAT_PLAIN, MLA_LAYER_ALGORITHM_AUTO,
       "CUSTOM", false, false}};
  std::vector<Call> calls;
  for (const Kind& kind : kinds) {
    auto& layer = kept<Layer>(kind);
    auto add = [&](const char* function, std::function<mla_status()> call,
                   std::vector<Output> outputs) {
      Call made;
      made.name = std::string(kind.name) + " " + function;
      made.call = std::move(call);
      made.outputs = std::move(outputs);
      calls.push_back(made);
    };
    add("mla_layer_create", [&] { return mla_layer_create(&layer.config, &layer.made); },
        {handle_of(layer.made)});
    calls.back().undo = [&] { mla_layer_destroy(layer.made); };
    add("mla_layer_workspace_size",
        [&] { return mla_layer_workspace_size(layer.layer, &layer.forward, &layer.bytes); },
        {value_of(layer.bytes)});
    add("mla_layer_forward", [&] { return mla_layer_forward(layer.layer, &layer.forward); },
        {elements_of(layer.out), elements_of(layer.lse)});
    add("mla_gather_and_maybe_dequant_cache", [&] { return mla_gather_and_maybe_dequant_cache(&layer.gather); },
        {elements_of(layer.gathered)});
    // Last: it leaves the cache poisoned.
    add("mla_concat_and_cache_mla", [&] { return mla_concat_and_cache_mla(&layer.concat); },
        {elements_of(layer.cache), elements_of(layer.rope_cache)});
  }
  return calls;
}

}  // namespace allocation
