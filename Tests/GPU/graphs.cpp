// Calls on devices that are captured into graphs.
//
// SPDX-License-Identifier: Apache-2.0
#include "device_attention.hpp"

namespace {

using test::Array;
using test::Attention;
using test::CapturedGraph;
using test::DeviceArray;
using test::DeviceAttention;
using test::Model;
using test::Primary;
using test::Stream;
using Lengths = std::vector<std::int32_t>;

const Model model{2, 64, 64, 128, 512};

Attention problem_of(unsigned seed, const Lengths& lengths) {
  return Attention::new_tokens(model, MLA_DTYPE_BFLOAT16, lengths, seed);
}

struct Captured {
  int mode;
  Lengths lengths;
};

/// Captured once, replayed on other numbers, whatever batch was prepared since.
void replays() {
  const Primary primary;
  const Stream stream;
  // The second takes several launches.
  for (const Captured& each : {Captured{CU_STREAM_CAPTURE_MODE_GLOBAL, {40, 0, 3}},
                               Captured{CU_STREAM_CAPTURE_MODE_RELAXED, Lengths(130, 2)}}) {
    Attention problem = problem_of(1, each.lengths);
    DeviceAttention on_device(problem);
    mla::backend backend("FLASH_ATTN", test::config_on(model));
    on_device.prepare(backend);
    const CapturedGraph graph(stream, [&] { on_device.launch(backend, stream); }, each.mode);
    backend.prepare_metadata(test::Offsets{0, 1});
    for (unsigned seed = 2; seed < 4; ++seed) {
      problem = problem_of(seed, each.lengths);
      on_device.upload(stream);
      graph.launch(stream);
      on_device.download(stream);
      test::expect_close(problem, test::reference_of(problem), "a replay");
    }
  }
}

void merge(const DeviceAttention& into, const DeviceAttention& context, CUstream stream) {
  mla_merge_args args = MLA_MERGE_ARGS_INIT;
  args.output = args.suffix_output = &into.out.view();
  args.output_lse = args.suffix_lse = &into.lse.view();
  args.prefix_output = &context.out.view(), args.prefix_lse = &context.lse.view();
  args.stream = stream;
  mla::check(mla_merge_attn_states(&args));
}

double merged_lse(double one, double other) {
  return std::max(one, other) + std::log1p(std::exp(-std::fabs(one - other)));
}

/// New tokens, their context, and the merge of both.
void a_whole_step() {
  const Primary primary;
  const Stream stream;
  Attention fresh = problem_of(1, {20, 7});
  Attention context = Attention::context(model, MLA_DTYPE_BFLOAT16, {20, 7}, {70, 3}, 2);
  context.q = fresh.q;
  DeviceAttention on_device(fresh), context_on_device(context);
  mla::backend backend("FLASH_ATTN", test::config_on(model));
  const mla_context_chunk chunks[] = {context.chunk(0)};
  backend.prepare_metadata(fresh.q_loc, chunks);
  on_device.reserve(backend);
  context_on_device.reserve(backend);
  const CapturedGraph graph(stream, [&] {
    on_device.launch(backend, stream);
    context_on_device.launch(backend, stream);
    merge(on_device, context_on_device, stream);
  });
  const test::Reference own = test::reference_of(fresh), before = test::reference_of(context);
  for (int replay = 0; replay < 2; ++replay) {
    on_device.upload(stream);
    context_on_device.upload(stream);
    graph.launch(stream);
    on_device.download(stream);
    fresh.lse.each([&](std::int64_t head, std::int64_t row, std::int64_t) {
      const auto i = static_cast<std::size_t>(row * model.heads + head);
      const double right = merged_lse(own.lse[i], before.lse[i]), got = fresh.lse.at(head, row);
      EXPECT(std::fabs(got - right) < 1e-3, "lse of row %d is %g, not %g", static_cast<int>(row), got, right);
    });
    fresh.out = Array(MLA_DTYPE_BFLOAT16, {27, model.heads, model.v});
    fresh.lse = Array(MLA_DTYPE_FLOAT32, {model.heads, 27});
  }
}

/// What opens a device: the capture goes on.
void a_first_use() {
  const Primary primary;
  const Stream stream;
  Attention problem = problem_of(1, {5});
  DeviceAttention on_device(problem);
  const CapturedGraph graph(stream, [&] {
    mla::backend backend("FLASH_ATTN", test::config_on(model));
    backend.prepare_metadata(problem.q_loc);
    on_device.launch(backend, stream);
    merge(on_device, on_device, stream);
  });
  on_device.upload(stream);
  graph.launch(stream);
  on_device.download(stream);
  const test::Reference once = test::reference_of(problem);
  problem.out.each([&](std::int64_t i, std::int64_t j, std::int64_t k) {
    const auto at = static_cast<std::size_t>((i * model.heads + j) * model.v + k);
    CHECK(std::fabs(problem.out.at(i, j, k) - once.out[at]) < 0.05);
  });
  // As the thread had it.
  int mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
  DRIVER(cuThreadExchangeStreamCaptureMode(&mode));
  CHECK(mode == CU_STREAM_CAPTURE_MODE_GLOBAL);
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<test::Case> cases{test::isolated("device: a first use is captured", a_first_use)};
  for (const char* work : {"late", "random", "worker"}) {
    const test::Environment environment{{"MLA_TEST_GPU_WORK", work}};
    cases.push_back(test::isolated(std::string("device: graphs are replayed, ") + work, replays, environment));
    cases.push_back(test::isolated(std::string("device: a whole step is captured, ") + work, a_whole_step, environment));
  }
  return test::run(argc, argv, cases);
}
