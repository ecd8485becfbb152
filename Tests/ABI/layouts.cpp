// Caches laid out as engines have them: what is written into one is read from it, with
// the bits of the same tokens in blocks.
//
// SPDX-License-Identifier: Apache-2.0
#include "support.hpp"

namespace {

constexpr std::int64_t requests = 3, new_tokens = 12, block_size = 8, positions = 64;
const test::Model model{2, 24, 8, 16, 40};
const test::Offsets query_start_loc{0, 5, 5, new_tokens}, context_lens{37, 9, 50};
constexpr std::int64_t cached_tokens = 37 + 9 + 50;

/// A layer and a batch, the tokens of its contexts behind those that are new.
struct Step {
  explicit Step(std::int32_t of_cache)
      : cache_dtype(of_cache),
        weights(MLA_DTYPE_FLOAT32, {model.heads * (model.nope + model.v), model.rank}),
        q(MLA_DTYPE_FLOAT32, {new_tokens, model.heads, model.qk()}),
        latents(MLA_DTYPE_FLOAT32, {new_tokens + cached_tokens, model.rank}, 3),
        k_pe(MLA_DTYPE_FLOAT32, {new_tokens + cached_tokens, model.rope}, 1) {
    std::mt19937 random(7);
    for (test::Array* array : {&weights, &q, &latents, &k_pe}) array->fill(random, 0.4);
  }

  float scale() const { return cache_dtype == MLA_DTYPE_FLOAT8_E4M3FN ? 0.125F : 0.0F; }

  std::int32_t cache_dtype;
  test::Array weights, q, latents, k_pe;
};

/// Where a context is: its tensors, and what tells how to find it.
struct Layout {
  test::Array cache;
  /// Of no dimensions: there is none.
  test::Array rope{MLA_DTYPE_FLOAT32, {}};
  std::vector<std::int32_t> table{}, starts{}, rows{};
  std::int64_t table_rows = 0;

  const mla_tensor* rope_view() const { return rope.view().ndim == 0 ? nullptr : &rope.view(); }
  std::int64_t size() const { return cache.view().ndim == 2 ? 1 : cache.size(1); }
  std::int64_t width() const { return table.empty() ? 0 : static_cast<std::int64_t>(table.size()) / table_rows; }

  /// Where a cached token goes.
  std::int64_t slot(std::int64_t request, std::int64_t token) const {
    const auto i = static_cast<std::size_t>(request);
    const std::int64_t position = token + (starts.empty() ? 0 : starts[i]);
    const std::int64_t row = rows.empty() ? request : rows[i];
    const std::int64_t place = row * width() + position / size();
    const std::int64_t block = table.empty() ? request : table[static_cast<std::size_t>(place)];
    return block * size() + position % size();
  }
};

void fill(const Step& step, const Layout& layout) {
  std::vector<std::int64_t> slots(new_tokens, -1);
  for (std::int64_t request = 0; request < requests; ++request) {
    for (std::int64_t token = 0; token < context_lens[static_cast<std::size_t>(request)]; ++token) {
      slots.push_back(layout.slot(request, token));
    }
  }
  mla_concat_and_cache_args args = MLA_CONCAT_AND_CACHE_ARGS_INIT;
  args.cache_scale = step.scale();
  args.kv_c_normed = &step.latents.view(), args.k_pe = &step.k_pe.view();
  args.slot_mapping = slots.data(), args.num_slots = static_cast<std::int64_t>(slots.size());
  args.kv_cache = &layout.cache.view(), args.k_pe_cache = layout.rope_view();
  mla::check(mla_concat_and_cache_mla(&args));
  CHECK(layout.cache.gaps_are_intact());
  CHECK(layout.rope_view() == nullptr || layout.rope.gaps_are_intact());
}

std::vector<std::uint8_t> result(const Step& step, const Layout& layout, std::int32_t algorithm) {
  test::Array out(MLA_DTYPE_FLOAT32, {new_tokens, model.heads, model.v});
  const mla::tensor latents = step.latents.view().narrow(0, 0, new_tokens);
  const mla::tensor k_pe = step.k_pe.view().narrow(0, 0, new_tokens);
  mla_layer_config config = model.layer_config(step.weights.view());
  config.cache_dtype = step.cache_dtype, config.cache_scale = step.scale();
  config.algorithm = algorithm;
  mla_layer_forward_args args = MLA_LAYER_FORWARD_ARGS_INIT;
  args.num_requests = requests;
  args.query_start_loc = query_start_loc.data(), args.context_lens = context_lens.data();
  args.q = &step.q.view(), args.kv_c_normed = &latents, args.k_pe = &k_pe, args.out = &out.view();
  args.kv_cache = &layout.cache.view(), args.k_pe_cache = layout.rope_view();
  if (!layout.table.empty()) {
    args.block_table = layout.table.data();
    args.max_blocks = static_cast<std::int32_t>(layout.width());
    args.block_table_stride = layout.width();
  }
  if (!layout.starts.empty()) args.context_starts = layout.starts.data();
  if (!layout.rows.empty()) args.block_table_rows = layout.rows.data(), args.num_table_rows = layout.table_rows;
  mla::layer(config).forward(args);
  out.each([&](std::int64_t i, std::int64_t j, std::int64_t k) { CHECK(std::isfinite(out.at(i, j, k))); });
  return out.bytes();
}

/// Numbers of blocks in no order, for each request `width`.
std::vector<std::int32_t> shuffled_table(std::int64_t rows, std::int64_t width) {
  auto table = test::numbered<std::int32_t>(rows * width);
  std::shuffle(table.begin(), table.end(), std::mt19937(9));
  return table;
}

void every_layout() {
  constexpr std::int64_t width = positions / block_size;
  const std::int64_t both = model.rank + model.rope;
  for (std::int32_t dtype : {MLA_DTYPE_FLOAT32, MLA_DTYPE_FLOAT16, MLA_DTYPE_BFLOAT16, MLA_DTYPE_FLOAT8_E4M3FN}) {
    const Step step(dtype);
    const auto blocks = [&](std::int64_t count, std::int64_t size, std::int64_t dim, std::int64_t padding) {
      return test::Array(dtype, {count, size, dim}, padding);
    };
    std::vector<Layout> layouts;
    layouts.push_back({blocks(requests * width, block_size, both, 0), test::Array(dtype, {}),
                       shuffled_table(requests, width), {}, {}, requests});
    layouts.push_back({blocks(requests * width, block_size, model.rank, 5),
                       blocks(requests * width, block_size, model.rope, 2), shuffled_table(requests, width), {}, {},
                       requests});
    layouts.push_back({blocks(requests, positions, both, 1)});
    layouts.push_back({blocks(requests, positions, model.rank, 0), blocks(requests, positions, model.rope, 3), {},
                       {3, 55, 14}});
    layouts.push_back({test::Array(dtype, {5 * positions, both}, 4), test::Array(dtype, {}),
                       test::numbered<std::int32_t>(5 * positions), {0, 1, 14}, {4, 0, 3}, 5});
    layouts.push_back({test::Array(dtype, {5 * positions, model.rank}), test::Array(dtype, {5 * positions, model.rope}),
                       shuffled_table(5, positions), {}, {1, 2, 0}, 5});
    for (const Layout& layout : layouts) fill(step, layout);
    for (std::int32_t algorithm : {MLA_LAYER_ALGORITHM_UP_PROJECTED, MLA_LAYER_ALGORITHM_ABSORBED}) {
      const auto expected = result(step, layouts[0], algorithm);
      for (std::size_t i = 1; i < layouts.size(); ++i) {
        EXPECT(result(step, layouts[i], algorithm) == expected, "%s, layout %d, algorithm %d has other bits",
               test::dtype_name(dtype), static_cast<int>(i), algorithm);
      }
    }
  }
}

/// A cache of latents in fp8, of rotary keys in bf16, as if those had been rounded to bf16
/// in a cache of fp32.
void rotary_keys_of_another_type() {
  Step narrow(MLA_DTYPE_FLOAT8_E4M3FN), wide(MLA_DTYPE_FLOAT32);
  const Layout stored{test::Array(narrow.cache_dtype, {requests, positions, model.rank}),
                      test::Array(MLA_DTYPE_BFLOAT16, {requests, positions, model.rope})};
  fill(narrow, stored);
  Layout exact{test::Array(MLA_DTYPE_FLOAT32, {requests, positions, model.rank + model.rope})};
  stored.cache.each([&](std::int64_t i, std::int64_t j, std::int64_t k) {
    exact.cache.set(i, j, k, 0.125 * stored.cache.at(i, j, k));
  });
  stored.rope.each([&](std::int64_t i, std::int64_t j, std::int64_t k) {
    exact.cache.set(i, j, model.rank + k, stored.rope.at(i, j, k));
  });
  for (std::int32_t algorithm : {MLA_LAYER_ALGORITHM_UP_PROJECTED, MLA_LAYER_ALGORITHM_ABSORBED}) {
    CHECK(result(narrow, stored, algorithm) == result(wide, exact, algorithm));
  }
}

/// Callers whose structs end before the fields of layouts: whatever lies behind is not read.
void structs_of_before() {
  const Step step(MLA_DTYPE_FLOAT32);
  Layout layout{test::Array(step.cache_dtype, {requests, positions, model.rank + model.rope})};
  layout.table = {2, 0, 1}, layout.table_rows = requests;
  test::Array out(MLA_DTYPE_FLOAT32, {new_tokens, model.heads, model.v});
  fill(step, layout);
  const auto expected = result(step, layout, MLA_LAYER_ALGORITHM_AUTO);
  const mla::tensor latents = step.latents.view().narrow(0, 0, new_tokens);
  const mla::tensor k_pe = step.k_pe.view().narrow(0, 0, new_tokens);
  mla_layer_forward_args args;
  std::memset(&args, 0xA5, sizeof(args));
  const mla_layer_forward_args initial = MLA_LAYER_FORWARD_ARGS_INIT;
  constexpr std::size_t size_before = offsetof(mla_layer_forward_args, k_pe_cache);
  std::memcpy(static_cast<void*>(&args), &initial, size_before);
  args.struct_size = size_before;
  args.num_requests = requests;
  args.query_start_loc = query_start_loc.data(), args.context_lens = context_lens.data();
  args.q = &step.q.view(), args.kv_c_normed = &latents, args.k_pe = &k_pe, args.out = &out.view();
  args.kv_cache = &layout.cache.view(), args.block_table = layout.table.data();
  args.max_blocks = 1, args.block_table_stride = 1;
  mla::layer(model.layer_config(step.weights.view())).forward(args);
  CHECK(out.bytes() == expected);
}

}  // namespace

int main(int argc, char** argv) {
  return test::run(argc, argv, {{"every layout", every_layout},
                                {"rotary keys of another type", rotary_keys_of_another_type},
                                {"structs of before", structs_of_before}});
}
