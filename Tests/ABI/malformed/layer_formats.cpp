// Malformed calls of the whole layer with quantized weights and fp8_ds_mla caches.
//
// SPDX-License-Identifier: Apache-2.0
#include "layer.hpp"

namespace malformed {
namespace {

constexpr std::int64_t slot_bytes = 656;

// The one rank and rotary dimension that fp8_ds_mla has; 280 rows of weights are
// three rows of blocks.
const test::Model model{2, 80, 64, 60, 512};
constexpr std::int64_t scale_rows = 3, scale_columns = 4;

struct Create : LayerCreate {
  Create()
      : LayerCreate(model, MLA_DTYPE_FLOAT8_E4M3FN),
        scales(MLA_DTYPE_FLOAT32, {scale_rows, scale_columns}) {
    for (std::int64_t i = 0; i < scale_rows * scale_columns; ++i) scale(i) = 0.5F;
    scales.before = scales.array.bytes();
    mla_layer_config& c = config.value;
    c.dtype = MLA_DTYPE_BFLOAT16;
    c.weight_scales = &scales.view.value;
    c.cache_format = MLA_CACHE_FORMAT_FP8_DS_MLA;
  }

  float& scale(std::int64_t i) { return static_cast<float*>(scales.array.view().data)[i]; }

  Operand scales;
};

struct Forward : LayerForward {
  Forward() : LayerForward(created<Create>(), model, {blocks, block_size, slot_bytes}) {}
};

struct ConcatAndCache : LayerConcatAndCache {
  ConcatAndCache() : LayerConcatAndCache(model, slot_bytes) {
    args.value.cache_format = MLA_CACHE_FORMAT_FP8_DS_MLA;
  }
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
  rules.push_back({"k_pe_cache", invalid, [](Forward& c, Random&) {
                     c.args.value.k_pe_cache = &c.k_pe.view.value;
                   }});
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
    const std::int64_t step = size_step("k_pe");
    c.k_pe.view.value.shape[1] += random.any_of<std::int64_t>({-step, step});
  });
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
  add("k_pe_cache",
      [](ConcatAndCache& c, Random&) { c.args.value.k_pe_cache = &c.k_pe.view.value; });
  return rules;
}

}  // namespace

std::vector<Function> layer_format_functions() {
  return {function<Create>("mla_layer_create of fp8 weights", create_rules()),
          function<Forward>("mla_layer_forward of fp8_ds_mla", forward_rules()),
          function<ConcatAndCache>("mla_concat_and_cache_mla of fp8_ds_mla", concat_rules())};
}

}  // namespace malformed
