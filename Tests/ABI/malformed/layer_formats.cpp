// Malformed calls of the whole layer with quantized weights and fp8_ds_mla caches.
//
// SPDX-License-Identifier: Apache-2.0
#include "tensors.hpp"

namespace malformed {
namespace {

constexpr mla_status invalid = MLA_ERROR_INVALID_ARGUMENT;
constexpr std::int64_t tokens = 6, blocks = 5, block_size = 4, slot_bytes = 656;

// The one rank and rotary dimension that fp8_ds_mla has; 280 rows of weights are
// three rows of blocks.
const test::Model model{2, 80, 64, 60, 512};
constexpr std::int64_t scale_rows = 3, scale_columns = 4;

float wrong_scale(Random& random) {
  return random.any_of<float>({0.0F, -1.0F, INFINITY, -INFINITY, NAN});
}

struct Create {
  Create()
      : weights(MLA_DTYPE_FLOAT8_E4M3FN, {model.heads * (model.nope + model.v), model.rank}),
        scales(MLA_DTYPE_FLOAT32, {scale_rows, scale_columns}),
        config(MLA_LAYER_CONFIG_INIT) {
    weights.fill();
    for (std::int64_t i = 0; i < scale_rows * scale_columns; ++i) scale(i) = 0.5F;
    scales.before = scales.array.bytes();
    mla_layer_config& c = config.value;
    c.num_heads = model.heads;
    c.scale = 0.25;
    c.kv_lora_rank = model.rank;
    c.qk_nope_head_dim = model.nope;
    c.qk_rope_head_dim = model.rope;
    c.v_head_dim = model.v;
    c.dtype = MLA_DTYPE_BFLOAT16;
    c.kv_b_proj = &weights.view.value;
    c.weight_scales = &scales.view.value;
    c.cache_format = MLA_CACHE_FORMAT_FP8_DS_MLA;
  }

  mla_status invoke() {
    const mla_status status = mla_layer_create(pointer, place);
    if (status == MLA_OK) mla_layer_destroy(layer);
    return status;
  }
  bool untouched() const { return weights.untouched() && layer == canary<mla_layer>(); }

  float& scale(std::int64_t i) { return static_cast<float*>(scales.array.view().data)[i]; }

  Operand weights, scales;
  Padded<mla_layer_config> config;
  const mla_layer_config* pointer = &config.value;
  mla_layer* layer = canary<mla_layer>();
  mla_layer** place = &layer;
};

/// Shared by all calls.
mla_layer* created() {
  static mla::layer* const layer = [] { return new mla::layer(Create().config.value); }();
  return layer->get();
}

struct Forward {
  Forward()
      : q(MLA_DTYPE_BFLOAT16, {tokens, model.heads, model.qk()}),
        kv_c_normed(MLA_DTYPE_BFLOAT16, {tokens, model.rank}),
        k_pe(MLA_DTYPE_BFLOAT16, {tokens, model.rope}),
        kv_cache(MLA_DTYPE_FLOAT8_E4M3FN, {blocks, block_size, slot_bytes}),
        out(MLA_DTYPE_BFLOAT16, {tokens, model.heads, model.v}),
        args(MLA_LAYER_FORWARD_ARGS_INIT) {
    for (Operand* input : {&q, &kv_c_normed, &k_pe}) input->fill();
    mla_layer_forward_args& a = args.value;
    a.num_requests = 1;
    a.query_start_loc = query_start_loc.data();
    a.context_lens = context_lens.data();
    a.q = &q.view.value;
    a.kv_c_normed = &kv_c_normed.view.value;
    a.k_pe = &k_pe.view.value;
    a.kv_cache = &kv_cache.view.value;
    a.block_table = block_table.data();
    a.block_table_stride = a.max_blocks = 2;
    a.out = &out.view.value;
  }

  mla_status invoke() { return mla_layer_forward(created(), &args.value); }
  bool untouched() const { return kv_cache.untouched() && out.untouched(); }

  Operand q, kv_c_normed, k_pe, kv_cache, out;
  test::Offsets query_start_loc{0, tokens}, context_lens{7}, block_table{4, 0};
  Padded<mla_layer_forward_args> args;
};

struct ConcatAndCache {
  ConcatAndCache()
      : kv_c_normed(MLA_DTYPE_BFLOAT16, {tokens, model.rank}),
        k_pe(MLA_DTYPE_BFLOAT16, {tokens, model.rope}),
        kv_cache(MLA_DTYPE_FLOAT8_E4M3FN, {blocks, block_size, slot_bytes}),
        args(MLA_CONCAT_AND_CACHE_ARGS_INIT) {
    kv_c_normed.fill();
    k_pe.fill();
    mla_concat_and_cache_args& a = args.value;
    a.kv_c_normed = &kv_c_normed.view.value;
    a.k_pe = &k_pe.view.value;
    a.kv_cache = &kv_cache.view.value;
    a.slot_mapping = slots.data();
    a.num_slots = tokens;
    a.cache_format = MLA_CACHE_FORMAT_FP8_DS_MLA;
  }

  mla_status invoke() { return mla_concat_and_cache_mla(&args.value); }
  bool untouched() const { return kv_cache.untouched(); }

  Operand kv_c_normed, k_pe, kv_cache;
  std::vector<std::int64_t> slots{3, -1, 19, 0, 7, 8};
  Padded<mla_concat_and_cache_args> args;
};

std::vector<Rule<Create>> create_rules() {
  std::vector<Rule<Create>> rules;
  add_tensor_rules(rules, "weight_scales", [](Create& c) -> auto& { return c.scales; },
                   [](Create& c) -> auto& { return c.config.value.weight_scales; },
                   Rows::by_shape);
  const auto add = [&](const char* field, auto apply) {
    rules.push_back({field, invalid, [=](Create& c, Random& random) {
                       apply(c, c.config.value, random);
                     }});
  };
  using Config = mla_layer_config;
  add("weight_scales", [](Create& c, Config&, Random& random) {
    c.scale(random.between(0, scale_rows * scale_columns - 1)) = wrong_scale(random);
  });
  add("weight_scales", [](Create& c, Config&, Random&) {
    c.scales.view.value.dtype = MLA_DTYPE_BFLOAT16;
  });
  add("dtype", [](Create&, Config& config, Random&) { config.dtype = MLA_DTYPE_NONE; });
  add("cache_format", [](Create&, Config& config, Random& random) {
    config.cache_format = random.any_of<std::int32_t>({2, random.negative(), INT32_MAX});
  });
  add("cache_dtype", [](Create&, Config& config, Random& random) {
    config.cache_dtype = random.any_of<std::int32_t>(
        {MLA_DTYPE_BFLOAT16, MLA_DTYPE_FLOAT16, MLA_DTYPE_FLOAT32, 9});
  });
  add("cache_scale", [](Create&, Config& config, Random& random) {
    config.cache_scale = random.any_of<float>({0.5F, 2.0F, -1.0F, INFINITY, NAN});
  });
  return rules;
}

/// Of anything that has a kv_cache.
template <class Call>
void add_cache_rules(std::vector<Rule<Call>>& rules) {
  const auto add = [&](auto apply) { rules.push_back({"kv_cache", invalid, apply}); };
  add([](Call& c, Random& random) {
    c.kv_cache.view.value.shape[2] = random.any_of<std::int64_t>({0, 576, 655, 657, -656});
  });
  add([](Call& c, Random& random) {
    c.kv_cache.view.value.dtype = random.any_of<std::int32_t>({MLA_DTYPE_BFLOAT16, 9});
  });
  add([](Call& c, Random&) { c.kv_cache.view.value.strides[1] = slot_bytes + 1; });
}

std::vector<Rule<Forward>> forward_rules() {
  std::vector<Rule<Forward>> rules;
  add_cache_rules(rules);
  rules.push_back({"kv_cache", invalid,
                   [](Forward& c, Random&) { c.args.value.kv_cache = nullptr; }});
  rules.push_back({"block_table", invalid, [](Forward& c, Random& random) {
                     c.block_table[1] = random.any_of<std::int32_t>({-1, 5, INT32_MAX});
                   }});
  return rules;
}

std::vector<Rule<ConcatAndCache>> concat_rules() {
  std::vector<Rule<ConcatAndCache>> rules;
  add_cache_rules(rules);
  const auto add = [&](const char* field, auto apply) { rules.push_back({field, invalid, apply}); };
  add("kv_c_normed", [](ConcatAndCache& c, Random& random) {
    c.kv_c_normed.view.value.shape[1] += random.any_of<std::int64_t>({-1, 1});
  });
  add("k_pe", [](ConcatAndCache& c, Random& random) {
    c.k_pe.view.value.shape[1] += random.any_of<std::int64_t>({-1, 1});
  });
  add("k_pe", [](ConcatAndCache& c, Random&) { c.args.value.k_pe = nullptr; });
  add("cache_scale", [](ConcatAndCache& c, Random& random) {
    c.args.value.cache_scale = random.any_of<float>({0.5F, 2.0F, -1.0F, INFINITY, NAN});
  });
  add("cache_format", [](ConcatAndCache& c, Random& random) {
    c.args.value.cache_format = random.any_of<std::int32_t>({2, -1, INT32_MAX});
  });
  add("slot_mapping", [](ConcatAndCache& c, Random& random) {
    c.slots[2] = random.any_of<std::int64_t>({-2, blocks * block_size, INT64_MIN, INT64_MAX});
  });
  add("reserved", [](ConcatAndCache& c, Random&) { c.args.value.reserved = 1; });
  return rules;
}

}  // namespace

std::vector<Function> layer_format_functions() {
  return {function<Create>("mla_layer_create of fp8 weights", create_rules()),
          function<Forward>("mla_layer_forward of fp8_ds_mla", forward_rules()),
          function<ConcatAndCache>("mla_concat_and_cache_mla of fp8_ds_mla", concat_rules())};
}

}  // namespace malformed
