// The lightning indexer against its definition in double precision: random batches in every
// format and table, ties and numbers that are not finite, bits, and what is cached.
//
// SPDX-License-Identifier: Apache-2.0
#include "indexing.hpp"

namespace {

using test::Array;
using test::IndexProblem;
using test::IndexRequest;
using test::IndexShape;

void select(const IndexProblem& problem, std::int32_t isa = MLA_ISA_DEFAULT, std::int64_t first = 0,
            std::int64_t rows = 0) {
  mla_index_select_args args = problem.args();
  args.max_isa = isa, args.first_row = first, args.num_rows = rows;
  mla::check(mla_index_select(&args));
}

constexpr std::int32_t plain_types[] = {MLA_DTYPE_BFLOAT16, MLA_DTYPE_FLOAT16, MLA_DTYPE_FLOAT32};

IndexShape random_shape(std::mt19937& random) {
  const auto below = [&](unsigned end) { return static_cast<std::int64_t>(random() % end); };
  IndexShape shape{};
  shape.q = below(4) == 0 ? MLA_DTYPE_FLOAT8_E4M3FN : plain_types[below(3)];
  shape.format = below(2) == 0 ? MLA_INDEX_FORMAT_FP8_BLOCK : MLA_INDEX_FORMAT_PLAIN;
  shape.cached = shape.is_scaled() ? MLA_DTYPE_FLOAT8_E4M3FN : below(2) == 0 && shape.q != MLA_DTYPE_FLOAT8_E4M3FN
                                                                   ? shape.q
                                                                   : plain_types[below(3)];
  shape.heads = below(3) == 0 ? 1 + below(20) : below(2) == 0 ? 8 : 4;
  shape.head_dim = below(2) == 0 ? 1 + below(70) : 32;
  // Scales of fp8 blocks lie anywhere.
  shape.block_size = 1 + below(33);
  shape.topk = static_cast<std::int32_t>(below(3) == 0 ? 1 + below(300) : 1 + below(20));
  shape.quantize_q = shape.q != MLA_DTYPE_FLOAT8_E4M3FN && below(4) == 0;
  shape.scale_format = static_cast<std::int32_t>(below(2));
  shape.has_visible_keys = below(3) == 0;
  shape.is_dense = below(6) == 0;
  shape.padding = below(2) * below(5);
  return shape;
}

std::vector<IndexRequest> random_requests(std::mt19937& random) {
  std::vector<IndexRequest> requests(random() % 4);
  for (IndexRequest& request : requests) {
    request.context = random() % 3 == 0 ? 0 : static_cast<std::int32_t>(random() % 250);
    request.new_tokens = static_cast<std::int32_t>(random() % 12);
  }
  return requests;
}

std::string name_of(const IndexShape& shape) {
  return std::string(test::dtype_name(shape.q)) + " on " + test::dtype_name(shape.cached) + ", " +
         std::to_string(shape.heads) + " heads of " + std::to_string(shape.head_dim) + ", top " +
         std::to_string(shape.topk) + (shape.quantize_q ? ", quantized by " + std::to_string(shape.scale_format) : "");
}

void random_cases(std::int32_t isa) {
  std::mt19937 random(static_cast<unsigned>(isa));
  for (unsigned seed = 0; seed < 500; ++seed) {
    const IndexShape shape = random_shape(random);
    const IndexProblem problem(shape, random_requests(random), seed);
    select(problem, isa);
    problem.expect_selected("case " + std::to_string(seed) + ", " + name_of(shape));
  }
}

/// The size of a model's, over several reductions.
void model_sizes() {
  for (const bool is_scaled : {false, true}) {
    IndexShape shape{MLA_DTYPE_BFLOAT16, MLA_DTYPE_BFLOAT16, 16, 128, 64, 64};
    if (is_scaled) shape.format = MLA_INDEX_FORMAT_FP8_BLOCK, shape.cached = MLA_DTYPE_FLOAT8_E4M3FN;
    const IndexProblem problem(shape, {{1500, 9}, {20, 3}}, 7);
    select(problem);
    problem.expect_selected("model sizes");
  }
}

/// Without scores nobody looks at the keys of a token that has them all, nor are there any.
void nothing_to_select() {
  IndexProblem problem({MLA_DTYPE_BFLOAT16, MLA_DTYPE_BFLOAT16, 4, 16, 8, 40}, {{30, 5}, {0, 0}, {0, 3}}, 3);
  mla_index_select_args args = problem.args();
  args.scores = nullptr;
  mla::check(mla_index_select(&args));
  for (std::int64_t row = 0; row < 8; ++row) {
    const std::int32_t visible = problem.visible_keys[static_cast<std::size_t>(row)];
    for (std::int32_t k = 0; k < 40; ++k) {
      CHECK(problem.selected(row)[static_cast<std::size_t>(k)] == (k < visible ? k : -1));
    }
  }
}

/// With small whole numbers there is no rounding: the order is exact, ties go to the earlier, NaN is
/// last, behind -inf.
void ties(std::int32_t isa) {
  std::mt19937 random(11);
  for (unsigned seed = 0; seed < 60; ++seed) {
    IndexShape shape{MLA_DTYPE_BFLOAT16, MLA_DTYPE_BFLOAT16, 3, 5, 16, 1 + static_cast<std::int32_t>(random() % 60)};
    IndexProblem problem(shape, {{200, 4}}, seed);
    const auto whole = [&] { return static_cast<double>(random() % 3) - 1; };
    problem.cache.each([&](auto i, auto j, auto k) { problem.cache.set(i, j, k, whole()); });
    problem.q.each([&](auto i, auto j, auto k) { problem.q.set(i, j, k, whole()); });
    problem.weights.each([&](auto i, auto j, auto k) { problem.weights.set(i, j, k, whole()); });
    const double odd[] = {NAN, HUGE_VAL, -HUGE_VAL};
    if (seed % 2 == 0) {
      for (int n = 0; n < 40; ++n) {
        problem.cache.set(problem.below(problem.blocks), problem.below(16), problem.below(5), odd[problem.below(3)]);
      }
    }
    if (seed % 5 == 0) problem.weights.set(1, 1, 0, HUGE_VAL), problem.weights.set(2, 0, 0, NAN);
    select(problem, isa);
    for (std::int64_t row = 0; row < 4; ++row) {
      const std::int32_t visible = problem.visible_keys[static_cast<std::size_t>(row)];
      std::vector<double> value(static_cast<std::size_t>(visible));
      for (std::int32_t key = 0; key < visible; ++key) {
        const auto [block, offset] = problem.slot(0, key);
        double sum = 0;
        for (int h = 0; h < 3; ++h) {
          double product = 0;
          for (int d = 0; d < 5; ++d) product += problem.q.at(row, h, d) * problem.cache.at(block, offset, d);
          sum += problem.weights.at(row, h) * (product < 0 ? 0 : product);
        }
        value[static_cast<std::size_t>(key)] = sum;
      }
      auto order = test::numbered<std::int32_t>(visible);
      std::sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
        const double x = value[static_cast<std::size_t>(a)], y = value[static_cast<std::size_t>(b)];
        if (std::isnan(x) || std::isnan(y)) return std::isnan(x) == std::isnan(y) ? a < b : std::isnan(y);
        return x == y ? a < b : x > y;
      });
      order.resize(static_cast<std::size_t>(std::min(visible, shape.topk)));
      std::sort(order.begin(), order.end());
      order.resize(static_cast<std::size_t>(shape.topk), -1);
      EXPECT(problem.selected(row) == order, "seed %u, row %d", seed, static_cast<int>(row));
      for (std::int32_t k = 0; k < std::min(visible, shape.topk); ++k) {
        const double got = problem.scores.at(row, k), right = value[static_cast<std::size_t>(order[static_cast<std::size_t>(k)])];
        EXPECT((got == right && !std::signbit(got) == !(got < 0)) || (std::isnan(got) && std::isnan(right)),
               "seed %u, row %d: score %g, not %g", seed, static_cast<int>(row), got, right);
      }
    }
  }
}

/// Scales of either sign make 0 and -0 of nothing: they are equal, and 0 comes out.
void zeros() {
  IndexProblem problem({MLA_DTYPE_BFLOAT16, MLA_DTYPE_FLOAT8_E4M3FN, 2, 8, 4, 6, MLA_INDEX_FORMAT_FP8_BLOCK}, {{50, 1}},
                       4);
  problem.q.each([&](auto i, auto j, auto k) { problem.q.set(i, j, k, 0); });
  for (std::int64_t block = 0; block < problem.blocks; ++block) {
    for (std::int64_t offset = 0; offset < 4; ++offset) {
      const float scale = offset % 2 == 0 ? -1 : 1;
      std::memcpy(problem.key_scale_at(block, offset), &scale, sizeof scale);
    }
  }
  select(problem);
  for (std::int32_t k = 0; k < 6; ++k) {
    CHECK(problem.selected(0)[static_cast<std::size_t>(k)] == k);
    CHECK(problem.scores.at(0, k) == 0 && !std::signbit(problem.scores.at(0, k)));
  }
}

/// A row has the same bits however the work is shared, and whoever else is in the batch.
void bits(std::int32_t isa) {
  const IndexShape shape{MLA_DTYPE_BFLOAT16, MLA_DTYPE_FLOAT8_E4M3FN, 12, 64, 64, 50, MLA_INDEX_FORMAT_FP8_BLOCK};
  IndexProblem problem(shape, {{300, 37}, {0, 5}, {90, 70}}, 5);
  mla::check(mla_set_num_threads(1));
  select(problem, isa);
  const test::Offsets indices = problem.indices;
  const std::vector<std::uint8_t> scores = problem.scores.bytes();
  const auto expect_same = [&](const char* what) {
    EXPECT(problem.indices == indices && problem.scores.bytes() == scores, "%s", what);
    problem.clear();
  };
  problem.clear();
  for (const std::int32_t threads : {2, 3, 16}) {
    mla::check(mla_set_num_threads(threads));
    select(problem, isa);
    expect_same("threads");
    for (const std::int64_t step : {1, 7, 40}) {
      for (std::int64_t first = 0; first < 112; first += step) {
        select(problem, isa, first, std::min(step, 112 - first));
      }
      expect_same("ranges of rows");
    }
  }
  mla::check(mla_set_num_threads(0));
  // The last request alone.
  mla_index_select_args args = problem.args();
  const std::int32_t alone[] = {0, 70};
  mla::tensor q = problem.q.view(), weights = problem.weights.view(), of_scores = problem.scores.view();
  for (mla::tensor* tensor : {&q, &weights, &of_scores}) {
    tensor->data = static_cast<char*>(tensor->data) + 42 * tensor->strides[0] * (tensor == &q ? 2 : 4);
    tensor->shape[0] = 70;
  }
  args.num_requests = 1, args.query_start_loc = alone, args.max_isa = isa;
  args.context_lens += 2, args.block_table += 2 * args.block_table_stride;
  args.q = &q, args.weights = &weights, args.scores = &of_scores;
  args.topk_indices += 42 * args.topk_stride;
  mla::check(mla_index_select(&args));
  for (std::int64_t row = 42; row < 112; ++row) {
    for (std::int64_t k = 0; k < 50; ++k) {
      CHECK(problem.indices[static_cast<std::size_t>(row * 50 + k)] == indices[static_cast<std::size_t>(row * 50 + k)]);
    }
  }
}

std::int64_t workspace_bytes(const IndexProblem& problem) {
  const mla_index_select_args args = problem.args();
  std::int64_t bytes = 0;
  mla::check(mla_index_workspace_size(&args, &bytes));
  return bytes;
}

/// Decoded tokens, fewer than threads: each one's keys are shared, and equal scores lie in all shares.
void few_tokens() {
  const IndexShape shape{MLA_DTYPE_BFLOAT16, MLA_DTYPE_BFLOAT16, 64, 128, 16, 700};
  for (const bool has_ties : {false, true}) {
    IndexProblem problem(shape, {{3000, 1}, {30, 1}, {2000, 2}, {0, 0}}, 6);
    if (has_ties) problem.cache.each([&](auto i, auto j, auto k) { problem.cache.set(i, j, k, k == j % 2 ? 1 : 0); });
    mla::check(mla_set_num_threads(1));
    select(problem);
    problem.expect_selected("few tokens");
    const test::Offsets indices = problem.indices;
    const std::vector<std::uint8_t> scores = problem.scores.bytes();
    for (const std::int32_t threads : {2, 3, 5, 16, 64}) {
      problem.clear();
      mla::check(mla_set_num_threads(threads));
      select(problem);
      EXPECT(problem.indices == indices && problem.scores.bytes() == scores, "%d threads", threads);
    }
  }
  // Longer contexts have no more shares than there is work for.
  mla::check(mla_set_num_threads(16));
  const std::int64_t bytes = workspace_bytes({shape, {{100000, 1}}, 2});
  CHECK(bytes > workspace_bytes({shape, {{1000, 1}}, 2}));
  CHECK(bytes == workspace_bytes({shape, {{200000, 1}}, 2}));
  mla::check(mla_set_num_threads(0));
}

/// Some rows are worked on; blocks of keys that those do not see may be anything.
void ranges_of_rows() {
  IndexProblem problem({MLA_DTYPE_FLOAT32, MLA_DTYPE_FLOAT32, 4, 20, 4, 9}, {{0, 30}, {5, 6}}, 9);
  for (std::int64_t key = 24; key < 30; key += 4) problem.block_table[static_cast<std::size_t>(key / 4)] = -1;
  select(problem, MLA_ISA_DEFAULT, 3, 20);
  problem.expect_selected("rows", 3, 23);
  problem.clear();
  select(problem, MLA_ISA_DEFAULT, 36, 0);
  problem.expect_selected("no rows", 0, 0);
}

void workspace() {
  IndexProblem problem({MLA_DTYPE_BFLOAT16, MLA_DTYPE_BFLOAT16, 4, 32, 16, 20}, {{100, 20}}, 2);
  mla_index_select_args args = problem.args();
  const std::int64_t bytes = workspace_bytes(problem);
  std::vector<char> memory(static_cast<std::size_t>(bytes) + 65, 'x');
  args.workspace = memory.data() + 1, args.workspace_size = bytes;
  mla::check(mla_index_select(&args));
  problem.expect_selected("in a workspace");
  CHECK(memory[0] == 'x');
  for (std::size_t i = static_cast<std::size_t>(bytes) + 1; i < memory.size(); ++i) CHECK(memory[i] == 'x');
  problem.clear();
  --args.workspace_size;
  CHECK(mla_index_select(&args) == MLA_ERROR_INVALID_ARGUMENT);
  CHECK(std::strstr(mla_last_error_message(), "see mla_index_workspace_size") != nullptr);
  problem.expect_selected("refused", 0, 0);
  // It does not grow with the context.
  CHECK(workspace_bytes({{MLA_DTYPE_BFLOAT16, MLA_DTYPE_BFLOAT16, 4, 32, 16, 20}, {{5000, 20}}, 2}) == bytes);
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<test::Case> cases{{"indexer: model sizes", model_sizes},
                                {"indexer: nothing to select", nothing_to_select},
                                {"indexer: zeros", zeros},
                                {"indexer: few tokens", few_tokens},
                                {"indexer: ranges of rows", ranges_of_rows},
                                {"indexer: workspace", workspace}};
  for (const std::int32_t isa : test::tables()) {
    const std::string table = std::string(" on ") + mla_isa_name(isa);
    cases.push_back({"indexer: random cases" + table, [=] { random_cases(isa); }});
    cases.push_back({"indexer: ties" + table, [=] { ties(isa); }});
    cases.push_back({"indexer: bits" + table, [=] { bits(isa); }});
  }
  return test::run(argc, argv, cases);
}
