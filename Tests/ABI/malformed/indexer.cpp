// Malformed calls of the lightning indexer: on a plain cache and on one of fp8 blocks.
//
// SPDX-License-Identifier: Apache-2.0
#include "layer.hpp"

namespace malformed {
namespace {

constexpr std::int64_t heads = 2, head_dim = 8;

struct StoreCall {
  StoreCall(std::int32_t format, std::int32_t dtype, std::int64_t width)
      : k(MLA_DTYPE_BFLOAT16, {tokens, head_dim}),
        index_cache(dtype, {blocks, block_size, width}),
        args(MLA_INDEX_STORE_ARGS_INIT) {
    k.fill();
    mla_index_store_args& a = args.value;
    a.format = format;
    a.k = &k.view.value;
    a.slot_mapping = slots.data();
    a.num_slots = tokens;
    a.index_cache = &index_cache.view.value;
  }

  mla_status invoke() { return mla_index_store(pointer); }
  bool untouched() const { return k.untouched() && index_cache.untouched(); }

  Operand k, index_cache;
  std::vector<std::int64_t> slots{0, 5, -1, 7, 19, 2};
  Padded<mla_index_store_args> args;
  const mla_index_store_args* pointer = &args.value;
};

struct Store : StoreCall {
  Store() : StoreCall(MLA_INDEX_FORMAT_PLAIN, MLA_DTYPE_FLOAT32, head_dim) {}
};
struct StoreBlocks : StoreCall {
  StoreBlocks() : StoreCall(MLA_INDEX_FORMAT_FP8_BLOCK, MLA_DTYPE_FLOAT8_E4M3FN, head_dim + 4) {}
};

struct SelectCall {
  SelectCall(std::int32_t format, std::int32_t dtype, std::int64_t width)
      : q(MLA_DTYPE_BFLOAT16, {tokens, heads, head_dim}),
        weights(MLA_DTYPE_FLOAT32, {tokens, heads}),
        index_cache(dtype, {blocks, block_size, width}),
        scores(MLA_DTYPE_FLOAT32, {tokens, topk}),
        args(MLA_INDEX_SELECT_ARGS_INIT) {
    for (Operand* input : {&q, &weights}) input->fill();
    mla_index_select_args& a = args.value;
    a.num_requests = 2;
    a.query_start_loc = query_start_loc.data();
    a.context_lens = context_lens.data();
    a.visible_keys = visible_keys.data();
    a.q = &q.view.value;
    a.weights = &weights.view.value;
    a.format = format;
    a.topk = topk;
    a.index_cache = &index_cache.view.value;
    a.block_table = block_table.data();
    a.block_table_stride = table_width;
    a.max_blocks = table_width;
    a.topk_indices = indices.data();
    a.topk_stride = topk + 1;
    a.scores = &scores.view.value;
  }

  mla_status invoke() { return mla_index_select(pointer); }
  bool untouched() const {
    return q.untouched() && weights.untouched() && index_cache.untouched() && scores.untouched() &&
           std::all_of(indices.begin(), indices.end(), [](std::int32_t index) { return index == -7; });
  }

  static constexpr std::int32_t topk = 3;
  Operand q, weights, index_cache, scores;
  test::Offsets query_start_loc{0, 4, 6}, context_lens{3, 7}, visible_keys{4, 5, 7, 0, 9, 8};
  // Blocks of keys that nobody sees are none.
  test::Offsets block_table{4, 0, -9, 1, 2, 3}, indices = test::Offsets(tokens * (topk + 1), -7);
  Padded<mla_index_select_args> args;
  const mla_index_select_args* pointer = &args.value;
};

struct Select : SelectCall {
  Select() : SelectCall(MLA_INDEX_FORMAT_PLAIN, MLA_DTYPE_BFLOAT16, head_dim) {}
};
struct SelectBlocks : SelectCall {
  SelectBlocks() : SelectCall(MLA_INDEX_FORMAT_FP8_BLOCK, MLA_DTYPE_FLOAT8_E4M3FN, head_dim + 4) {}
};

template <class Call>
void add_rules_of_both(std::vector<Rule<Call>>& rules) {
  const auto add = [&](const char* field, auto apply) { rules.push_back({field, invalid, apply}); };
  add_struct_rules(rules, "args", [](Call& c) -> auto& { return c.args; }, [](Call& c) -> auto& { return c.pointer; });
  add("format", [](Call& c, Random& random) {
    c.args.value.format = random.any_of<std::int32_t>({2, random.negative(), INT32_MAX});
  });
  add("scale_format", [](Call& c, Random& random) {
    c.args.value.scale_format = random.any_of<std::int32_t>({2, random.negative(), INT32_MAX});
  });
  add("hadamard", [](Call& c, Random& random) {
    c.args.value.hadamard = random.any_of<std::int32_t>({2, random.negative(), INT32_MAX});
  });
  add("index_cache", [](Call& c, Random&) { c.args.value.index_cache = nullptr; });
  add("index_cache", [](Call& c, Random& random) { c.index_cache.view.value.dtype = wrong_dtype(random); });
  add("index_cache", [](Call& c, Random&) { c.index_cache.view.value.dtype = MLA_DTYPE_FLOAT8_E8M0FNU; });
  add("index_cache", [](Call& c, Random& random) {
    c.index_cache.view.value.shape[2] += random.any_of<std::int64_t>({-4, 4, 1, INT64_MAX / 2});
  });
  add("index_cache", [](Call& c, Random&) { c.index_cache.view.value.shape[1] = 0; });
  add("index_cache", [](Call& c, Random& random) {
    c.index_cache.view.value.ndim = random.any_of<std::int32_t>({0, 1, 4, 5, -1});
  });
  add("index_cache", [](Call& c, Random&) { c.index_cache.view.value.data = nullptr; });
  add("stream", [](Call& c, Random&) { c.args.value.stream = &c; });
}

template <class Call>
std::vector<Rule<Call>> store_rules() {
  std::vector<Rule<Call>> rules;
  add_rules_of_both(rules);
  add_tensor_rules(rules, "k", [](Call& c) -> auto& { return c.k; }, [](Call& c) -> auto& { return c.args.value.k; },
                   Rows::first_by_offsets);
  const auto add = [&](const char* field, auto apply) { rules.push_back({field, invalid, apply}); };
  add("k", [](Call& c, Random&) { c.k.view.value.dtype = MLA_DTYPE_FLOAT8_E4M3FN; });
  add("index_cache", [](Call& c, Random&) {
    c.k.view.value.data = c.index_cache.view.value.data;
  });
  add("index_cache", [](Call& c, Random&) { c.index_cache.view.value.strides[0] = 4; });
  add("slot_mapping", [](Call& c, Random&) { c.args.value.slot_mapping = nullptr; });
  add("slot_mapping", [](Call& c, Random& random) {
    c.slots[2] = random.any_of<std::int64_t>({-2, blocks * block_size, INT64_MIN, INT64_MAX});
  });
  add("num_slots", [](Call& c, Random& random) {
    c.args.value.num_slots = random.any_of<std::int64_t>({-1, tokens + 1, INT64_MIN, INT64_MAX});
  });
  return rules;
}

template <class Call>
void add_batch_rules(std::vector<Rule<Call>>& rules) {
  const auto add = [&](const char* field, auto apply) { rules.push_back({field, invalid, apply}); };
  add("num_requests", [](Call& c, Random& random) {
    c.args.value.num_requests = random.any_of<std::int32_t>({random.negative(), (1 << 20) + 1, INT32_MAX});
  });
  add("query_start_loc", [](Call& c, Random&) { c.args.value.query_start_loc = nullptr; });
  add("query_start_loc", [](Call& c, Random& random) {
    c.query_start_loc[0] = random.any_of<std::int32_t>({1, random.negative()});
  });
  add("query_start_loc", [](Call& c, Random& random) {
    c.query_start_loc[2] = random.any_of<std::int32_t>({3, 7, INT32_MIN, INT32_MAX});
  });
  add("context_lens", [](Call& c, Random& random) {
    c.context_lens[1] = random.any_of<std::int32_t>({random.negative(), INT32_MAX, INT32_MAX - 1});
  });
  add("visible_keys", [](Call& c, Random& random) {
    c.visible_keys[3] = random.any_of<std::int32_t>({random.negative(), 8, INT32_MAX});
  });
  add("block_table", [](Call& c, Random&) { c.args.value.block_table = nullptr; });
  add("block_table", [](Call& c, Random& random) {
    c.block_table[4] = random.any_of<std::int32_t>({-1, 5, INT32_MIN, INT32_MAX});
  });
  add("block_table_stride", [](Call& c, Random& random) {
    c.args.value.block_table_stride = random.any_of<std::int64_t>({0, 2, -1, INT64_MIN, INT64_MAX});
  });
  add("max_blocks", [](Call& c, Random& random) {
    c.args.value.max_blocks = random.any_of<std::int32_t>({0, 1, random.negative()});
  });
  add("first_row", [](Call& c, Random& random) {
    c.args.value.first_row = random.any_of<std::int64_t>({-1, tokens + 1, INT64_MIN, INT64_MAX});
  });
  add("num_rows", [](Call& c, Random& random) {
    // Whatever the first row is said to be.
    c.args.value.num_rows = random.any_of<std::int64_t>({-1, tokens + 1, INT64_MIN, INT64_MAX});
  });
}

template <class Call>
std::vector<Rule<Call>> select_rules() {
  std::vector<Rule<Call>> rules;
  add_rules_of_both(rules);
  add_batch_rules(rules);
  add_tensor_rules(rules, "q", [](Call& c) -> auto& { return c.q; }, [](Call& c) -> auto& { return c.args.value.q; },
                   Rows::by_shape);
  add_tensor_rules(rules, "weights", [](Call& c) -> auto& { return c.weights; },
                   [](Call& c) -> auto& { return c.args.value.weights; }, Rows::by_shape, false, 2);
  add_tensor_rules(rules, "scores", [](Call& c) -> auto& { return c.scores; },
                   [](Call& c) -> auto& { return c.args.value.scores; }, Rows::by_shape, true, 4);
  const auto add = [&](const char* field, auto apply) { rules.push_back({field, invalid, apply}); };
  add("weights", [](Call& c, Random&) { c.weights.view.value.dtype = MLA_DTYPE_BFLOAT16; });
  add("scores", [](Call& c, Random&) { c.scores.view.value.dtype = MLA_DTYPE_FLOAT16; });
  add("scores", [](Call& c, Random&) { c.scores.view.value.data = c.weights.view.value.data; });
  add("scores", [](Call& c, Random&) { c.scores.view.value.data = c.indices.data(); });
  add("topk", [](Call& c, Random& random) {
    c.args.value.topk = random.any_of<std::int32_t>({0, random.negative(), (1 << 20) + 1, INT32_MAX});
  });
  add("topk_indices", [](Call& c, Random&) { c.args.value.topk_indices = nullptr; });
  add("topk_indices", [](Call& c, Random&) {
    c.args.value.topk_indices = static_cast<std::int32_t*>(c.weights.view.value.data);
  });
  add("topk_indices", [](Call& c, Random&) {
    c.args.value.topk_indices = const_cast<std::int32_t*>(misaligned(c.indices.data()));
  });
  add("topk_stride", [](Call& c, Random& random) {
    c.args.value.topk_stride = random.any_of<std::int64_t>({2, 0, -1, INT64_MIN, INT64_MAX, INT64_MAX / 8});
  });
  add("quantize_q", [](Call& c, Random& random) {
    c.args.value.quantize_q = random.any_of<std::int32_t>({2, random.negative(), INT32_MAX});
  });
  add("quantize_q", [](Call& c, Random&) {
    c.q.view.value.dtype = MLA_DTYPE_FLOAT8_E4M3FN, c.args.value.quantize_q = 1;
  });
  add("hadamard", [](Call& c, Random&) {
    c.q.view.value.dtype = MLA_DTYPE_FLOAT8_E4M3FN, c.args.value.hadamard = 1;
  });
  add("max_isa", [](Call& c, Random& random) {
    c.args.value.max_isa = random.any_of<std::int32_t>({8, random.negative(), INT32_MAX});
  });
  add("workspace", [](Call& c, Random& random) {
    c.args.value.workspace_size = random.any_of<std::int64_t>({-1, 1, INT64_MIN, INT64_MAX});
  });
  add_workspace_rule(rules, "q", [](Call& c) -> auto& { return c.q; });
  add("reserved", [](Call& c, Random&) { c.args.value.reserved = 1; });
  return rules;
}

template <class Call>
std::vector<Rule<Call>> with_block_rules(std::vector<Rule<Call>> rules) {
  rules.push_back({"index_cache", invalid, [](Call& c, Random& random) {
                     c.index_cache.view.value.strides[1] = random.any_of<std::int64_t>({8, 13, 16});
                   }});
  return rules;
}

struct WorkspaceSize : Select {
  mla_status invoke() { return mla_index_workspace_size(pointer, place); }
  bool untouched() const { return bytes == -3 && Select::untouched(); }

  std::int64_t bytes = -3;
  std::int64_t* place = &bytes;
};

}  // namespace

std::vector<Function> index_functions() {
  return {function<Store>("mla_index_store", store_rules<Store>()),
          function<StoreBlocks>("mla_index_store of fp8 blocks", with_block_rules(store_rules<StoreBlocks>())),
          function<Select>("mla_index_select", select_rules<Select>()),
          function<SelectBlocks>("mla_index_select of fp8 blocks", with_block_rules(select_rules<SelectBlocks>())),
          function<WorkspaceSize>("mla_index_workspace_size",
                                  {{"bytes", invalid, [](WorkspaceSize& c, Random&) { c.place = nullptr; }}})};
}

}  // namespace malformed
