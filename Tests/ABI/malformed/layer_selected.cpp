// Malformed calls of a layer whose tokens attend to selected keys.
//
// SPDX-License-Identifier: Apache-2.0
#include "layer.hpp"

namespace malformed {
namespace {

const test::Model model{2, 8, 4, 8, 16};
constexpr std::int32_t topk = 3;
constexpr std::int64_t topk_stride = 4;

struct Create : LayerCreate {
  explicit Create(std::int32_t algorithm = MLA_LAYER_ALGORITHM_AUTO)
      : LayerCreate(model, MLA_DTYPE_BFLOAT16) {
    config.value.cache_dtype = MLA_DTYPE_FLOAT8_E4M3FN;
    config.value.cache_scale = 0.5F;
    config.value.algorithm = algorithm;
  }
};

struct CreateUpProjected : Create {
  CreateUpProjected() : Create(MLA_LAYER_ALGORITHM_UP_PROJECTED) {}
};

/// Positions of requests of 7 and 10 tokens in the cache, four and two behind them: for each
/// token its own among them, and one entry that is not read.
struct Forward : LayerForward {
  Forward()
      : LayerForward(created<Create>(), model, {blocks, block_size, model.rank + model.rope}) {
    args.value.topk_indices = indices.data();
    args.value.topk_stride = topk_stride;
    args.value.topk = topk;
  }

  bool untouched() const { return indices == whole && LayerForward::untouched(); }

  test::Offsets whole{7, 0, -1, -7, 1, 8, 1, 99, 9, 9, 9, -7, -1, -1, -1, -7, 0, 10, 4, -7, 11, 5, -1};
  test::Offsets indices = whole;
};

/// All 11 and 12 tokens are in the cache.
struct CachedForward : Forward {
  CachedForward() {
    args.value.kv_c_normed = args.value.k_pe = nullptr;
    args.value.new_tokens_cached = 1;
    block_table[2] = 2;
  }
};

template <class Call>
std::vector<Rule<Call>> selected_rules() {
  std::vector<Rule<Call>> rules;
  const auto add = [&](const char* field, auto apply) { rules.push_back({field, invalid, apply}); };
  const auto add_entry = [&](std::size_t place, std::int32_t beyond) {
    add("topk_indices", [place, beyond](Call& c, Random& random) {
      c.indices[place] = random.any_of<std::int32_t>({-2, beyond, INT32_MIN, INT32_MAX});
      c.whole = c.indices;
    });
  };
  // Of the first and last token of each request.
  add_entry(0, 8);
  add_entry(14, 11);
  add_entry(17, 11);
  add_entry(22, 12);
  add("topk", [](Call& c, Random& random) {
    c.args.value.topk = random.any_of<std::int32_t>({0, random.negative()});
  });
  add("topk_stride", [](Call& c, Random& random) {
    c.args.value.topk_stride = random.any_of<std::int64_t>({0, 2, -1, INT64_MIN, INT64_MAX, INT64_MAX / 8});
  });
  add("topk_indices", [](Call& c, Random&) {
    const void* odd = reinterpret_cast<const char*>(c.indices.data()) + 2;
    c.args.value.topk_indices = static_cast<const std::int32_t*>(odd);
  });
  add("new_tokens_cached", [](Call& c, Random& random) {
    c.args.value.new_tokens_cached = random.any_of<std::int32_t>({2, random.negative(), INT32_MAX});
  });
  add("out.data", [](Call& c, Random&) { c.out.view.value.data = c.indices.data(); });
  add("lse.data", [](Call& c, Random&) { c.lse.view.value.data = c.indices.data(); });
  return rules;
}

std::vector<Rule<Forward>> forward_rules() {
  std::vector<Rule<Forward>> rules = selected_rules<Forward>();
  rules.push_back({"topk_indices = not NULL", MLA_ERROR_UNSUPPORTED_CONFIGURATION,
                   [](Forward& c, Random&) { c.layer = created<CreateUpProjected>(); }});
  // Of rows that q has not, no indices are read.
  rules.push_back({"query_start_loc[2]", invalid, [](Forward& c, Random& random) {
                     c.query_start_loc[2] = random.any_of<std::int32_t>({7, 1 << 24});
                   }});
  rules.push_back({"kv_c_normed", invalid, [](Forward& c, Random&) {
                     c.args.value.kv_c_normed = nullptr;
                     c.args.value.new_tokens_cached = 0;
                   }});
  return rules;
}

std::vector<Rule<CachedForward>> cached_rules() {
  std::vector<Rule<CachedForward>> rules = selected_rules<CachedForward>();
  const auto add = [&](const char* field, auto apply) { rules.push_back({field, invalid, apply}); };
  add("kv_cache", [](CachedForward& c, Random&) { c.args.value.kv_cache = nullptr; });
  add("block_table[1][2]", [](CachedForward& c, Random& random) {
    c.block_table[5] = random.any_of<std::int32_t>({-1, 5, INT32_MIN, INT32_MAX});
  });
  // 12 tokens have room.
  add("context_lens[1] and its new tokens", [](CachedForward& c, Random&) { c.context_lens[1] = 11; });
  add("new_tokens_cached", [](CachedForward& c, Random&) {
    c.args.value.flags = MLA_LAYER_CONTEXT_ONLY;
  });
  return rules;
}

}  // namespace

std::vector<Function> layer_selected_functions() {
  return {function<Forward>("mla_layer_forward of selected keys", forward_rules()),
          function<CachedForward>("mla_layer_forward of cached new tokens", cached_rules())};
}

}  // namespace malformed
