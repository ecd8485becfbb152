// The lightning indexer.
//
// SPDX-License-Identifier: Apache-2.0
#include "../indexing.hpp"
#include "call.hpp"

namespace allocation {
namespace {

struct Indexing {
  Indexing()
      : problem({MLA_DTYPE_BFLOAT16, MLA_DTYPE_FLOAT8_E4M3FN, 4, 32, 8, 20, MLA_INDEX_FORMAT_FP8_BLOCK, true,
                 MLA_INDEX_SCALE_FP32, true},
                {{90, 40}, {0, 1}, {700, 20}}, 1),
        k(MLA_DTYPE_BFLOAT16, {300, 32}),
        cache(MLA_DTYPE_FLOAT8_E4M3FN, {60, 8, 36}),
        select(problem.args()) {
    std::mt19937 random(1);
    k.fill(random);
    // Not in order: what has been met is kept.
    for (std::int64_t i = 0; i < 300; ++i) slots.push_back(i * 77 % 300);
    store.format = MLA_INDEX_FORMAT_FP8_BLOCK, store.hadamard = 1;
    store.k = &k.view(), store.index_cache = &cache.view();
    store.slot_mapping = slots.data(), store.num_slots = 300;
  }

  test::IndexProblem problem;
  test::Array k, cache;
  std::vector<std::int64_t> slots;
  mla_index_store_args store = MLA_INDEX_STORE_ARGS_INIT;
  mla_index_select_args select;
  std::int64_t bytes = 0;
};

}  // namespace

std::vector<Call> index_calls() {
  auto& indexing = kept<Indexing>();
  Call store, select, size;
  store.name = "mla_index_store";
  store.call = [&] { return mla_index_store(&indexing.store); };
  store.outputs = {elements_of(indexing.cache)};
  select.name = "mla_index_select";
  select.call = [&] { return mla_index_select(&indexing.select); };
  select.outputs = {{indexing.problem.indices.data(), indexing.problem.indices.size() * 4, false},
                    elements_of(indexing.problem.scores)};
  // Memory of its own each time.
  select.before = [] { mla_trim(nullptr); };
  size.name = "mla_index_workspace_size";
  size.call = [&] { return mla_index_workspace_size(&indexing.select, &indexing.bytes); };
  size.outputs = {value_of(indexing.bytes)};
  return {store, select, size};
}

}  // namespace allocation
