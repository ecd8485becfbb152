// Malformed calls that gather from a cache: of one tensor into two, of two into one, of fp8_ds_mla.
//
// SPDX-License-Identifier: Apache-2.0
#include "layer.hpp"

namespace malformed {
namespace {

const test::Model model{2, 8, 4, 8, 16};
const std::int64_t width = model.rank + model.rope;

/// Two requests' tokens in a cache of fp8 of that shape.
struct GatherCall {
  GatherCall(std::vector<std::int64_t> cache, std::int64_t dst_width)
      : kv_cache(MLA_DTYPE_FLOAT8_E4M3FN, std::move(cache)),
        dst(MLA_DTYPE_BFLOAT16, {tokens, dst_width}),
        args(MLA_GATHER_CACHE_ARGS_INIT) {
    mla_gather_cache_args& a = args.value;
    a.cache_scale = 0.5F;
    a.kv_cache = &kv_cache.view.value;
    a.num_requests = 2;
    a.block_table = block_table.data();
    a.block_table_stride = table_width;
    a.max_blocks = table_width;
    a.cu_seq_lens = cu_seq_lens.data();
    a.seq_starts = seq_starts.data();
    a.dst = &dst.view.value;
  }

  mla_status invoke() { return mla_gather_and_maybe_dequant_cache(pointer); }
  bool untouched() const { return kv_cache.untouched() && dst.untouched(); }

  Operand kv_cache, dst;
  // Blocks that nobody reads are none.
  test::Offsets cu_seq_lens{0, 4, 6}, seq_starts{3, 9}, block_table{4, 0, -9, 77, -1, 3};
  Padded<mla_gather_cache_args> args;
  const mla_gather_cache_args* pointer = &args.value;
};

struct Gather : GatherCall {
  Gather() : GatherCall({blocks, block_size, width}, model.rank), k_pe(MLA_DTYPE_BFLOAT16, {tokens, model.rope}) {
    args.value.k_pe = &k_pe.view.value;
  }
  bool untouched() const { return k_pe.untouched() && GatherCall::untouched(); }

  Operand k_pe;
};

struct GatherTwo : GatherCall {
  GatherTwo()
      : GatherCall({blocks, block_size, model.rank}, width),
        k_pe_cache(MLA_DTYPE_BFLOAT16, {blocks, block_size, model.rope}) {
    args.value.k_pe_cache = &k_pe_cache.view.value;
  }
  bool untouched() const { return k_pe_cache.untouched() && GatherCall::untouched(); }

  Operand k_pe_cache;
};

/// A block for each request.
struct GatherDense : GatherCall {
  GatherDense() : GatherCall({2, 12, width}, width) {
    args.value.block_table = nullptr;
    args.value.max_blocks = 0;
  }
};

struct GatherScaled : GatherCall {
  GatherScaled() : GatherCall({blocks, block_size, 656}, 576) {
    args.value.cache_scale = 0;
    args.value.cache_format = MLA_CACHE_FORMAT_FP8_DS_MLA;
  }
};

/// What breaks any of them.
template <class Call>
std::vector<Rule<Call>> rules_of_all() {
  std::vector<Rule<Call>> rules;
  add_struct_rules(rules, "args", [](Call& c) -> auto& { return c.args; }, [](Call& c) -> auto& { return c.pointer; });
  // Wider ones count as broken already.
  if (Call().dst.view.value.shape[1] <= 100) {
    add_tensor_rules(rules, "dst", [](Call& c) -> auto& { return c.dst; },
                     [](Call& c) -> auto& { return c.args.value.dst; }, Rows::first_by_offsets);
  }
  const auto add = [&](const char* field, auto apply) { rules.push_back({field, invalid, apply}); };
  add("dst", [](Call& c, Random&) { c.dst.view.value.dtype = MLA_DTYPE_FLOAT8_E4M3FN; });
  add("kv_cache", [](Call& c, Random&) { c.args.value.kv_cache = nullptr; });
  add("kv_cache", [](Call& c, Random& random) {
    // Not by what other wrong widths would go with.
    c.kv_cache.view.value.shape[2] += random.any_of<std::int64_t>({-8, 8, INT64_MAX / 2});
  });
  add("kv_cache", [](Call& c, Random& random) { c.kv_cache.view.value.dtype = wrong_dtype(random); });
  add("kv_cache", [](Call& c, Random&) { c.kv_cache.view.value.shape[1] = 0; });
  add("kv_cache", [](Call& c, Random&) { c.dst.view.value.data = c.kv_cache.view.value.data; });
  add("num_requests", [](Call& c, Random& random) {
    c.args.value.num_requests = random.any_of<std::int32_t>({random.negative(), (1 << 20) + 1, INT32_MAX});
  });
  add("cu_seq_lens", [](Call& c, Random&) { c.args.value.cu_seq_lens = nullptr; });
  add("cu_seq_lens", [](Call& c, Random& random) {
    c.cu_seq_lens[0] = random.any_of<std::int32_t>({1, random.negative()});
  });
  add("cu_seq_lens", [](Call& c, Random& random) {
    c.cu_seq_lens[1] = random.any_of<std::int32_t>({-1, 7, INT32_MIN, INT32_MAX});
  });
  add("cu_seq_lens", [](Call& c, Random& random) {
    c.cu_seq_lens[2] = random.any_of<std::int32_t>({3, 7, INT32_MIN, INT32_MAX});
  });
  add("seq_starts", [](Call& c, Random& random) {
    c.seq_starts[0] = random.any_of<std::int32_t>({random.negative(), 9, 12, 13, INT32_MAX});
  });
  add("stream", [](Call& c, Random&) { c.args.value.stream = c.block_table.data(); });
  add("reserved", [](Call& c, Random&) { c.args.value.reserved = 1; });
  return rules;
}

template <class Call>
void add_format_rule(std::vector<Rule<Call>>& rules) {
  rules.push_back({"cache_format", invalid, [](Call& c, Random& random) {
                     c.args.value.cache_format = random.any_of<std::int32_t>({2, random.negative(), INT32_MAX});
                   }});
}

template <class Call>
void add_table_rules(std::vector<Rule<Call>>& rules) {
  const auto add = [&](const char* field, auto apply) { rules.push_back({field, invalid, apply}); };
  add("block_table", [](Call& c, Random&) { c.args.value.block_table = nullptr; });
  add("block_table", [](Call& c, Random& random) {
    c.block_table[1] = random.any_of<std::int32_t>({-1, 5, INT32_MIN, INT32_MAX});
  });
  add("block_table_stride", [](Call& c, Random& random) {
    c.args.value.block_table_stride = random.any_of<std::int64_t>({0, 2, -1, INT64_MIN, INT64_MAX});
  });
  add("max_blocks", [](Call& c, Random& random) {
    c.args.value.max_blocks = random.any_of<std::int32_t>({0, 1, random.negative()});
  });
}

std::vector<Rule<Gather>> rules_of_one() {
  auto rules = rules_of_all<Gather>();
  add_table_rules(rules);
  // Without it dst is what is wrong.
  add_tensor_rules(rules, "k_pe", [](Gather& c) -> auto& { return c.k_pe; },
                   [](Gather& c) -> auto& { return c.args.value.k_pe; }, Rows::by_shape, true);
  const auto add = [&](const char* field, auto apply) { rules.push_back({field, invalid, apply}); };
  add("dst", [](Gather& c, Random&) { c.args.value.k_pe = nullptr; });
  add("k_pe", [](Gather& c, Random&) { c.k_pe.view.value.dtype = MLA_DTYPE_FLOAT16; });
  add("k_pe", [](Gather& c, Random& random) {
    c.k_pe.view.value.data = random.any_of({c.dst.view.value.data, c.kv_cache.view.value.data});
  });
  add("cache_scale", [](Gather& c, Random& random) { c.args.value.cache_scale = wrong_scale(random); });
  return rules;
}

std::vector<Rule<GatherTwo>> rules_of_two() {
  auto rules = rules_of_all<GatherTwo>();
  add_table_rules(rules);
  add_tensor_rules(rules, "k_pe_cache", [](GatherTwo& c) -> auto& { return c.k_pe_cache; },
                   [](GatherTwo& c) -> auto& { return c.args.value.k_pe_cache; }, Rows::by_shape, true, 2);
  rules.push_back({"k_pe_cache", invalid, [](GatherTwo& c, Random&) {
                     c.dst.view.value.data = c.k_pe_cache.view.value.data;
                   }});
  return rules;
}

std::vector<Rule<GatherDense>> rules_of_dense() {
  auto rules = rules_of_all<GatherDense>();
  add_format_rule(rules);
  const auto add = [&](const char* field, auto apply) { rules.push_back({field, invalid, apply}); };
  add("block_table", [](GatherDense& c, Random&) { c.kv_cache.view.value.shape[0] = 1; });
  add("max_blocks", [](GatherDense& c, Random& random) {
    c.args.value.max_blocks = random.any_of<std::int32_t>({1, random.negative(), INT32_MAX});
  });
  return rules;
}

std::vector<Rule<GatherScaled>> rules_of_scaled() {
  auto rules = rules_of_all<GatherScaled>();
  add_format_rule(rules);
  add_table_rules(rules);
  const auto add = [&](const char* field, auto apply) { rules.push_back({field, invalid, apply}); };
  add("dst", [](GatherScaled& c, Random&) { c.args.value.dst = nullptr; });
  add("dst", [](GatherScaled& c, Random& random) {
    c.dst.view.value.shape[1] = random.any_of<std::int64_t>({0, 64, 511, 513, 575, 577, INT64_MAX});
  });
  add("cache_scale", [](GatherScaled& c, Random& random) {
    c.args.value.cache_scale = random.any_of<float>({0.5F, 2.0F, -1.0F, INFINITY, NAN});
  });
  add("kv_cache", [](GatherScaled& c, Random&) { c.kv_cache.view.value.strides[1] = 657; });
  add("k_pe_cache", [](GatherScaled& c, Random&) { c.args.value.k_pe_cache = &c.dst.view.value; });
  return rules;
}

}  // namespace

std::vector<Function> gather_functions() {
  const std::string name = "mla_gather_and_maybe_dequant_cache";
  return {function<Gather>(name, rules_of_one()), function<GatherTwo>(name + " of two tensors", rules_of_two()),
          function<GatherDense>(name + " of a dense cache", rules_of_dense()),
          function<GatherScaled>(name + " of fp8_ds_mla", rules_of_scaled())};
}

}  // namespace malformed
