// Malformed calls of the whole layer on caches of two tensors, of padded contexts, of
// rows of a table by number, and without a table.
//
// SPDX-License-Identifier: Apache-2.0
#include "layer.hpp"

namespace malformed {
namespace {

const test::Model model{2, 8, 4, 8, 16};

struct Create : LayerCreate {
  Create() : LayerCreate(model, MLA_DTYPE_BFLOAT16) {
    config.value.cache_dtype = MLA_DTYPE_FLOAT8_E4M3FN;
    config.value.cache_scale = 0.5F;
  }
};

/// Rotary keys of bf16 in a tensor of their own.
struct RopeCache {
  RopeCache() : k_pe_cache(MLA_DTYPE_BFLOAT16, {blocks, block_size, model.rope}) {}

  Operand k_pe_cache;
};

struct Forward : RopeCache, LayerForward {
  Forward() : LayerForward(created<Create>(), model, {blocks, block_size, model.rank}) {
    // Only the last row has a place that nobody reads.
    block_table = {-7, 5, INT32_MAX, 1, 2, 3, 4, 0, -9};
    mla_layer_forward_args& a = args.value;
    a.k_pe_cache = &k_pe_cache.view.value;
    a.context_starts = context_starts.data();
    a.block_table = block_table.data();
    a.block_table_rows = block_table_rows.data();
    a.num_table_rows = 3;
  }

  bool untouched() const { return k_pe_cache.untouched() && LayerForward::untouched(); }

  test::Offsets context_starts{1, 2}, block_table_rows{2, 1};
};

/// A block for each request.
struct DenseForward : LayerForward {
  DenseForward()
      : LayerForward(created<Create>(), model, {2, 12, model.rank + model.rope}) {
    args.value.block_table = nullptr;
    args.value.max_blocks = 0;
    args.value.context_starts = context_starts.data();
  }

  test::Offsets context_starts{5, 2};
};

struct ConcatAndCache : RopeCache, LayerConcatAndCache {
  ConcatAndCache() : LayerConcatAndCache(model, model.rank) {
    args.value.cache_scale = 0.5F;
    args.value.k_pe_cache = &k_pe_cache.view.value;
  }

  bool untouched() const { return k_pe_cache.untouched() && LayerConcatAndCache::untouched(); }
};

template <class Call>
void add_rope_cache_rules(std::vector<Rule<Call>>& rules) {
  // Without it kv_cache is what is wrong.
  add_tensor_rules(rules, "k_pe_cache", [](Call& c) -> auto& { return c.k_pe_cache; },
                   [](Call& c) -> auto& { return c.args.value.k_pe_cache; }, Rows::by_shape, true);
  rules.push_back({"kv_cache", invalid, [](Call& c, Random&) { c.args.value.kv_cache = nullptr; }});
  rules.push_back({"kv_cache", invalid, [](Call& c, Random& random) {
                     c.kv_cache.view.value.ndim = random.any_of<std::int32_t>({0, 1, 4, 5, -1, INT32_MAX});
                   }});
}

template <class Call>
void add_start_rules(std::vector<Rule<Call>>& rules) {
  rules.push_back({"context_starts", invalid, [](Call& c, Random& random) {
                     c.context_starts[0] =
                         random.any_of<std::int32_t>({random.negative(), 6, 12, 13, INT32_MAX});
                   }});
  rules.push_back({"context_lens", invalid, [](Call& c, Random& random) {
                     c.context_lens[1] = random.any_of<std::int32_t>({11, 13, INT32_MAX});
                   }});
}

std::vector<Rule<Forward>> forward_rules() {
  std::vector<Rule<Forward>> rules;
  add_rope_cache_rules(rules);
  add_start_rules(rules);
  const auto add = [&](const char* field, auto apply) { rules.push_back({field, invalid, apply}); };
  add("block_table", [](Forward& c, Random&) { c.args.value.block_table = nullptr; });
  add("block_table", [](Forward& c, Random& random) {
    c.block_table[5] = random.any_of<std::int32_t>({-1, 5, INT32_MIN, INT32_MAX});
  });
  add("block_table_rows", [](Forward& c, Random& random) {
    c.block_table_rows[0] = random.any_of<std::int32_t>({random.negative(), 3, INT32_MAX});
  });
  add("num_table_rows", [](Forward& c, Random& random) {
    c.args.value.num_table_rows = random.any_of<std::int64_t>({-1, 0, 1, INT64_MIN, INT64_MAX});
  });
  add("block_table_stride", [](Forward& c, Random& random) {
    c.args.value.block_table_stride = random.any_of<std::int64_t>({0, 2, -1, INT64_MIN, INT64_MAX});
  });
  add("flags", [](Forward& c, Random& random) {
    c.args.value.flags = random.any_of<std::uint64_t>({2, 6, UINT64_C(1) << 63, UINT64_MAX});
  });
  return rules;
}

std::vector<Rule<DenseForward>> dense_rules() {
  std::vector<Rule<DenseForward>> rules;
  add_start_rules(rules);
  const auto add = [&](const char* field, auto apply) { rules.push_back({field, invalid, apply}); };
  add("block_table", [](DenseForward& c, Random&) { c.kv_cache.view.value.shape[0] = 1; });
  add("max_blocks", [](DenseForward& c, Random& random) {
    c.args.value.max_blocks = random.any_of<std::int32_t>({1, random.negative(), INT32_MAX});
  });
  add("block_table_rows", [](DenseForward& c, Random&) {
    c.args.value.block_table_rows = c.context_starts.data();
    c.args.value.num_table_rows = 9;
  });
  return rules;
}

std::vector<Rule<ConcatAndCache>> concat_rules() {
  std::vector<Rule<ConcatAndCache>> rules;
  add_rope_cache_rules(rules);
  const auto add = [&](const char* field, auto apply) { rules.push_back({field, invalid, apply}); };
  // Without any it would go with a k_pe_cache of no width.
  add("k_pe", [](ConcatAndCache& c, Random&) { c.k_pe.view.value.ndim = 3; });
  add("k_pe_cache", [](ConcatAndCache& c, Random&) {
    c.k_pe_cache.view.value.data = c.k_pe.view.value.data;
  });
  add("kv_cache", [](ConcatAndCache& c, Random&) {
    c.kv_cache.view.value.data = c.kv_c_normed.view.value.data;
  });
  // Which reaches farther, over what lies behind.
  add("must not overlap", [](ConcatAndCache& c, Random&) {
    c.kv_cache.view.value.data = c.k_pe_cache.view.value.data;
  });
  return rules;
}

}  // namespace

std::vector<Function> layer_layout_functions() {
  return {function<Forward>("mla_layer_forward of two tensors", forward_rules()),
          function<DenseForward>("mla_layer_forward of a dense cache", dense_rules()),
          function<ConcatAndCache>("mla_concat_and_cache_mla of two tensors", concat_rules())};
}

}  // namespace malformed
