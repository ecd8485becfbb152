// Malformed calls of the whole layer.
//
// SPDX-License-Identifier: Apache-2.0
#include "layer.hpp"

namespace malformed {
namespace {

const test::Model model{2, 8, 4, 8, 16};
const std::int64_t width = model.rank + model.rope;

struct Create : LayerCreate {
  Create() : LayerCreate(model, MLA_DTYPE_BFLOAT16) {
    config.value.cache_dtype = MLA_DTYPE_FLOAT8_E4M3FN;
    config.value.cache_scale = 0.5F;
  }
};

struct Forward : LayerForward {
  Forward() : LayerForward(created<Create>(), model, {blocks, block_size, width}) {}
};

struct WorkspaceSize : Forward {
  mla_status invoke() { return mla_layer_workspace_size(layer, pointer, place); }
  bool untouched() const { return bytes == 77 && Forward::untouched(); }

  std::int64_t bytes = 77;
  std::int64_t* place = &bytes;
};

struct CreateManyHeads : LayerCreate {
  CreateManyHeads() : LayerCreate({65536, 1, 1, 1, 1}, MLA_DTYPE_BFLOAT16) {
    config.value.algorithm = MLA_LAYER_ALGORITHM_ABSORBED;
  }
};

struct ConcatAndCache : LayerConcatAndCache {
  ConcatAndCache() : LayerConcatAndCache(model, width) { args.value.cache_scale = 0.5F; }
};

std::vector<Rule<Create>> create_rules() {
  std::vector<Rule<Create>> rules;
  add_struct_rules(rules, "config", [](Create& c) -> auto& { return c.config; },
                   [](Create& c) -> auto& { return c.pointer; });
  add_tensor_rules(rules, "kv_b_proj", [](Create& c) -> auto& { return c.weights; },
                   [](Create& c) -> auto& { return c.config.value.kv_b_proj; }, Rows::by_shape);
  const auto add = [&](const char* field, auto apply) {
    rules.push_back({field, invalid, [=](Create& c, Random& random) {
                       apply(c.config.value, random);
                     }});
  };
  using Config = mla_layer_config;
  add("num_heads", [](Config& c, Random& random) { c.num_heads = random.negative(); });
  add("scale", [](Config& c, Random& random) {
    c.scale = random.any_of<double>({HUGE_VAL, -HUGE_VAL, std::nan(""), 1e300, -0x1p-127});
  });
  add("kv_lora_rank", [](Config& c, Random& random) {
    c.kv_lora_rank = random.any_of<std::int32_t>({0, random.negative(), INT32_MAX});
  });
  add("qk_nope_head_dim",
      [](Config& c, Random& random) { c.qk_nope_head_dim = random.negative(); });
  add("qk_rope_head_dim",
      [](Config& c, Random& random) { c.qk_rope_head_dim = random.negative(); });
  add("v_head_dim", [](Config& c, Random& random) {
    c.v_head_dim = random.any_of<std::int32_t>({0, random.negative(), INT32_MAX});
  });
  add("max_isa", [](Config& c, Random& random) {
    c.max_isa = random.any_of<std::int32_t>({8, random.negative(), INT32_MAX});
  });
  add("device_type", [](Config& c, Random& random) {
    c.device_type = random.any_of<std::int32_t>({MLA_DEVICE_CUDA_HOST, 77, random.negative()});
  });
  add("device_id", [](Config& c, Random& random) {
    c.device_id = random.any_of<std::int32_t>({1, INT32_MAX, random.negative()});
  });
  add("dtype", [](Config& c, Random& random) {
    c.dtype = random.any_of<std::int32_t>({MLA_DTYPE_FLOAT8_E4M3FN, MLA_DTYPE_FLOAT8_E8M0FNU, 6, random.negative()});
  });
  add("cache_dtype", [](Config& c, Random& random) {
    c.cache_dtype = random.any_of<std::int32_t>({MLA_DTYPE_FLOAT8_E8M0FNU, 6, random.negative(), INT32_MAX});
  });
  add("cache_scale", [](Config& c, Random& random) { c.cache_scale = wrong_scale(random); });
  add("cache_format", [](Config& c, Random& random) {
    c.cache_format = random.any_of<std::int32_t>({2, random.negative(), INT32_MAX});
  });
  rules.push_back({"weight_scales", invalid, [](Create& c, Random&) {
                     c.config.value.weight_scales = &c.weights.view.value;
                   }});
  add("workspace_bound", [](Config& c, Random& random) {
    c.workspace_bound = random.any_of<std::int64_t>({-1, INT64_MIN});
  });
  add("algorithm", [](Config& c, Random& random) {
    c.algorithm = random.any_of<std::int32_t>({3, random.negative(), INT32_MAX});
  });
  rules.push_back({"layer", invalid, [](Create& c, Random&) { c.place = nullptr; }});
  return rules;
}

/// What breaks a batch, whatever is asked about it.
template <class Call>
std::vector<Rule<Call>> batch_rules() {
  std::vector<Rule<Call>> rules;
  add_struct_rules(rules, "args", [](Call& c) -> auto& { return c.args; },
                   [](Call& c) -> auto& { return c.pointer; });
  const auto add = [&](const char* field, auto apply) { rules.push_back({field, invalid, apply}); };
  add("layer", [](Call& c, Random&) { c.layer = nullptr; });
  add("num_requests",
      [](Call& c, Random& random) { c.args.value.num_requests = random.negative(); });
  add("query_start_loc", [](Call& c, Random&) { c.args.value.query_start_loc = nullptr; });
  add("query_start_loc", [](Call& c, Random& random) {
    c.query_start_loc[1] = random.any_of<std::int32_t>({-1, 7, INT32_MIN, INT32_MAX});
  });
  add("context_lens", [](Call& c, Random& random) {
    c.context_lens[static_cast<std::size_t>(random.between(0, 1))] = random.negative();
  });
  return rules;
}

std::vector<Rule<Forward>> forward_rules() {
  std::vector<Rule<Forward>> rules = batch_rules<Forward>();
#define TENSOR(name, rows, nullable)                                            \
  add_tensor_rules(rules, #name, [](Forward& c) -> auto& { return c.name; },    \
                   [](Forward& c) -> auto& { return c.args.value.name; }, rows, nullable); \
  add_workspace_rule(rules, #name, [](Forward& c) -> auto& { return c.name; })
  TENSOR(q, Rows::by_offsets, false);
  TENSOR(kv_c_normed, Rows::by_shape, false);
  TENSOR(k_pe, Rows::by_shape, false);
  TENSOR(out, Rows::by_offsets, false);
  TENSOR(lse, Rows::by_offsets, true);
#undef TENSOR
  const auto add = [&](const char* field, auto apply) { rules.push_back({field, invalid, apply}); };
  add("kv_cache", [](Forward& c, Random&) { c.args.value.kv_cache = nullptr; });
  add("kv_cache", [](Forward& c, Random& random) {
    c.kv_cache.view.value.shape[2] += random.any_of<std::int64_t>({-1, 1, INT64_MAX / 2});
  });
  add("kv_cache", [](Forward& c, Random& random) {
    c.kv_cache.view.value.dtype = random.any_of<std::int32_t>({MLA_DTYPE_BFLOAT16, 9});
  });
  add("block_table", [](Forward& c, Random&) { c.args.value.block_table = nullptr; });
  add("block_table", [](Forward& c, Random& random) {
    c.block_table[1] = random.any_of<std::int32_t>({-1, 5, INT32_MIN, INT32_MAX});
  });
  add("block_table_stride", [](Forward& c, Random& random) {
    c.args.value.block_table_stride = random.any_of<std::int64_t>({0, 2, -1, INT64_MIN, INT64_MAX});
  });
  add("max_blocks", [](Forward& c, Random& random) {
    c.args.value.max_blocks = random.any_of<std::int32_t>({0, 1, random.negative()});
  });
  add("context_lens", [](Forward& c, Random& random) {
    c.context_lens[1] = random.any_of<std::int32_t>({13, INT32_MAX});
  });
  add_workspace_rule(rules, "kv_cache", [](Forward& c) -> auto& { return c.kv_cache; });
  add("reserved", [](Forward& c, Random&) { c.args.value.reserved = 1; });
  add("stream", [](Forward& c, Random&) { c.args.value.stream = c.scratch; });
  add("workspace", [](Forward& c, Random& random) {
    c.args.value.workspace = c.scratch;
    c.args.value.workspace_size = random.any_of<std::int64_t>({1, 63, -1, INT64_MIN});
  });
  add_output_scale_rules(rules, [](Forward& c) -> auto& { return c.out.view.value; },
                         [](Forward& c) -> auto& { return c.args.value.output_scale; },
                         [](Forward& c) -> auto& { return c.scale; });
  add("out", [](Forward& c, Random& random) {
    c.out.view.value.data = random.any_of({c.q.view.value.data, c.kv_c_normed.view.value.data,
                                           c.k_pe.view.value.data, c.kv_cache.view.value.data});
  });
  return rules;
}

std::vector<Rule<ConcatAndCache>> concat_rules() {
  std::vector<Rule<ConcatAndCache>> rules;
  add_struct_rules(rules, "args", [](ConcatAndCache& c) -> auto& { return c.args; },
                   [](ConcatAndCache& c) -> auto& { return c.pointer; });
#define TENSOR(name, rows)                                                             \
  add_tensor_rules(rules, #name, [](ConcatAndCache& c) -> auto& { return c.name; },    \
                   [](ConcatAndCache& c) -> auto& { return c.args.value.name; }, rows)
  TENSOR(kv_c_normed, Rows::by_offsets);
  TENSOR(k_pe, Rows::by_shape);
#undef TENSOR
  const auto add = [&](const char* field, auto apply) { rules.push_back({field, invalid, apply}); };
  add("kv_cache", [](ConcatAndCache& c, Random&) { c.args.value.kv_cache = nullptr; });
  add("cache_scale", [](ConcatAndCache& c, Random& random) {
    c.args.value.cache_scale = wrong_scale(random);
  });
  add("slot_mapping", [](ConcatAndCache& c, Random&) { c.args.value.slot_mapping = nullptr; });
  add("slot_mapping", [](ConcatAndCache& c, Random& random) {
    c.slots[2] = random.any_of<std::int64_t>({-2, blocks * block_size, INT64_MIN, INT64_MAX});
  });
  add("num_slots", [](ConcatAndCache& c, Random& random) {
    c.args.value.num_slots = random.any_of<std::int64_t>({-1, tokens + 1, INT64_MIN, INT64_MAX});
  });
  add("stream", [](ConcatAndCache& c, Random&) { c.args.value.stream = c.slots.data(); });
  return rules;
}

}  // namespace

std::vector<Function> layer_functions() {
  std::vector<Rule<WorkspaceSize>> workspace = batch_rules<WorkspaceSize>();
  // Beyond the header's bounds on a batch.
  workspace.push_back({"num_requests", invalid, [](WorkspaceSize& c, Random&) {
                         c.layer = created<CreateManyHeads>();
                         c.query_start_loc.assign(300, 0);
                         c.context_lens.assign(299, 0);
                         c.args.value.num_requests = 299;
                         c.args.value.query_start_loc = c.query_start_loc.data();
                         c.args.value.context_lens = c.context_lens.data();
                       }});
  workspace.push_back({"query_start_loc", invalid, [](WorkspaceSize& c, Random&) {
                         c.layer = created<CreateManyHeads>();
                         c.query_start_loc.back() = INT32_MAX;
                       }});
  workspace.push_back(
      {"bytes", invalid, [](WorkspaceSize& c, Random&) { c.place = nullptr; }});
  return {function<Create>("mla_layer_create", create_rules()),
          function<Forward>("mla_layer_forward", forward_rules()),
          function<WorkspaceSize>("mla_layer_workspace_size", workspace),
          function<ConcatAndCache>("mla_concat_and_cache_mla", concat_rules())};
}

}  // namespace malformed
