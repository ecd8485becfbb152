// Tokens out of a paged cache, against the definition of what is in it.
//
// SPDX-License-Identifier: Apache-2.0
#include "gathering.hpp"

namespace {

using test::GatherProblem;
using test::GatherShape;

const std::vector<std::vector<std::int32_t>> batches{{}, {0}, {1}, {7, 0, 0, 30, 1, 0}, {64}};

void every_format() {
  for (const auto& [name, shape] : test::gather_shapes()) {
    for (std::size_t i = 0; i < batches.size(); ++i) {
      if (shape.is_dense && batches[i].empty()) continue;
      const GatherProblem problem(shape, batches[i], 3 + static_cast<unsigned>(i));
      mla_gather_cache_args args = problem.args();
      if (batches[i].empty()) args.cu_seq_lens = nullptr;
      mla::check(mla_gather_and_maybe_dequant_cache(&args));
      problem.expect_gathered(name + ", batch " + std::to_string(i));
    }
  }
}

/// From the beginning of requests.
void without_starts() {
  const GatherShape shape{MLA_DTYPE_BFLOAT16, MLA_DTYPE_BFLOAT16, 24, 8, 4};
  GatherProblem problem(shape, {9, 1, 33}, 1);
  problem.seq_starts.assign(3, 0);
  for (std::int32_t& block : problem.block_table) block = block < 0 ? 3 : block;
  mla_gather_cache_args args = problem.args();
  args.seq_starts = nullptr;
  mla::check(mla_gather_and_maybe_dequant_cache(&args));
  problem.expect_gathered("without starts");
}

/// More rows than a task, of requests that end anywhere in one, for any number of threads.
void threads() {
  const GatherShape shape{MLA_DTYPE_FLOAT16, MLA_DTYPE_FLOAT8_E4M3FN, 512, 64, 16, MLA_CACHE_FORMAT_FP8_DS_MLA};
  for (const std::int32_t threads : {1, 2, 7}) {
    mla::check(mla_set_num_threads(threads));
    const GatherProblem problem(shape, {200, 1, 0, 63, 64, 129, 3, 5, 70}, 1);
    const mla_gather_cache_args args = problem.args();
    mla::check(mla_gather_and_maybe_dequant_cache(&args));
    problem.expect_gathered(std::to_string(threads) + " threads");
  }
  mla::check(mla_set_num_threads(0));
}

/// A block that does not exist, whichever request has it: nothing is written.
void blocks_that_are_refused() {
  const GatherShape shape{MLA_DTYPE_BFLOAT16, MLA_DTYPE_BFLOAT16, 24, 8, 4};
  for (const std::int32_t wrong : {-1, 23, INT32_MAX, INT32_MIN}) {
    GatherProblem problem(shape, {40, 300}, 1);
    problem.block_table[problem.block_table.size() - 2] = wrong;
    const mla_gather_cache_args args = problem.args();
    const mla_status status = mla_gather_and_maybe_dequant_cache(&args);
    EXPECT(status == MLA_ERROR_INVALID_ARGUMENT && std::strstr(mla_last_error_message(), "block_table[1]["), "%d, %s",
           static_cast<int>(status), mla_last_error_message());
    for (const std::uint8_t byte : problem.dst.bytes()) CHECK(byte == 0xFF);
  }
}

void lengths_that_are_refused() {
  const GatherShape shape{MLA_DTYPE_BFLOAT16, MLA_DTYPE_BFLOAT16, 24, 8, 4};
  const auto refused = [&](auto change, const char* text) {
    GatherProblem problem(shape, {9, 30}, 1);
    problem.seq_starts = {5, 2};
    for (std::int32_t& block : problem.block_table) block = block < 0 ? 3 : block;
    mla_gather_cache_args args = problem.args();
    change(problem, args);
    const mla_status status = mla_gather_and_maybe_dequant_cache(&args);
    EXPECT(status == MLA_ERROR_INVALID_ARGUMENT && std::strstr(mla_last_error_message(), text), "%d, %s; not: %s",
           static_cast<int>(status), mla_last_error_message(), text);
    for (const std::uint8_t byte : problem.dst.bytes()) CHECK(byte == 0xFF);
  };
  using Args = mla_gather_cache_args;
  refused([](GatherProblem& p, Args&) { p.cu_seq_lens[1] = 40; }, "cu_seq_lens[2] = 39: must not be below");
  refused([](GatherProblem& p, Args&) { p.cu_seq_lens[2] = 41; }, "cu_seq_lens[2] = 41: must not be beyond the 40 rows of dst");
  refused([](GatherProblem& p, Args&) { p.seq_starts[0] = -1; }, "seq_starts[0] = -1: must be 0 to");
  refused([](GatherProblem& p, Args& a) { p.seq_starts[1] = a.max_blocks * 4 - 29; },
          "cu_seq_lens[2] - cu_seq_lens[1] = 30: must not be beyond the 29 tokens that max_blocks");
  refused([](GatherProblem& p, Args&) { p.cache.view().shape[1] = 0; }, "kv_cache.shape[1] = 0: must be at least 1");
  refused([](GatherProblem&, Args& a) { a.cu_seq_lens = nullptr; }, "cu_seq_lens = NULL");
  refused([](GatherProblem&, Args& a) { a.block_table = nullptr; }, "block_table = NULL");
}

}  // namespace

int main(int argc, char** argv) {
  return test::run(argc, argv, {{"every format", every_format},
                                {"without starts", without_starts},
                                {"threads", threads},
                                {"blocks that are refused", blocks_that_are_refused},
                                {"lengths that are refused", lengths_that_are_refused}});
}
