// SPDX-License-Identifier: Apache-2.0
#include "indexing.hpp"

#include "../support.hpp"
#include "throws.hpp"

namespace test {

namespace {

constexpr std::int64_t slots[] = {3, 4, -1, 0};
constexpr std::int32_t query_start_loc[] = {0, 1}, context_lens[] = {2}, block_table[] = {1, 0};

/// A key's only number is its token's; the query's is 1.
void stored_and_selected() {
  Array k(MLA_DTYPE_FLOAT32, {4, 1}), cache(MLA_DTYPE_FLOAT32, {2, 3, 1});
  for (std::int64_t token = 0; token < 4; ++token) k.set(token, 0, 0, static_cast<double>(token + 1));
  mla::index_store(k.view(), cache.view(), slots);
  CHECK(cache.at(1, 0, 0) == 1 && cache.at(1, 1, 0) == 2 && cache.at(0, 0, 0) == 4);
  Array q(MLA_DTYPE_FLOAT32, {1, 1, 1}), weights(MLA_DTYPE_FLOAT32, {1, 1});
  q.set(0, 0, 0, 1), weights.set(0, 0, 0, 1);
  std::int32_t selected = 7;
  mla_index_select_args args = MLA_INDEX_SELECT_ARGS_INIT;
  args.num_requests = 1;
  args.query_start_loc = query_start_loc;
  args.context_lens = context_lens;
  args.q = &q.view();
  args.weights = &weights.view();
  args.topk = 1;
  args.index_cache = &cache.view();
  args.block_table = block_table;
  args.block_table_stride = args.max_blocks = 2;
  args.topk_indices = &selected;
  args.topk_stride = 1;
  args.context_lens = nullptr;
  mla::index_select(args);
  CHECK(selected == 0);
  CHECK(mla::index_workspace_size(args) > 0);
  // Two tokens more are seen; what nobody has stored is a NaN.
  args.context_lens = context_lens;
  mla::index_select(args);
  CHECK(selected == 1);
}

void scaled() {
  Array k(MLA_DTYPE_FLOAT32, {1, 4}), cache(MLA_DTYPE_FLOAT8_E4M3FN, {1, 1, 8});
  k.each([&](auto i, auto j, auto) { k.set(i, j, 0, 448); });
  const std::int64_t first[] = {0};
  mla::index_store(k.view(), cache.view(), first, MLA_INDEX_FORMAT_FP8_BLOCK, MLA_INDEX_SCALE_POWER_OF_TWO, true);
  // The first is the sum of all by 2, the others are differences.
  CHECK(cache.at(0, 0, 0) == 448 && cache.at(0, 0, 1) == 0);
  float scale;
  std::memcpy(&scale, static_cast<char*>(cache.view().data) + 4, 4);
  CHECK(scale == 2);
}

}  // namespace

void wrapper_indexing() {
  stored_and_selected();
  scaled();
  const Array k(MLA_DTYPE_FLOAT32, {4, 3}), cache(MLA_DTYPE_FLOAT32, {2, 3, 3});
  expect_throws(MLA_ERROR_INVALID_ARGUMENT, "hadamard = 1: must be 0", [&] {
    mla::index_store(k.view(), cache.view(), slots, MLA_INDEX_FORMAT_PLAIN, MLA_INDEX_SCALE_FP32, true);
  });
}

}  // namespace test
