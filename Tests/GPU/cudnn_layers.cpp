// Layers whose attention is cuDNN's: a request's context and new tokens in one run, the last
// new token seeing the last key.
//
// SPDX-License-Identifier: Apache-2.0
#include "cudnn_runs.hpp"
#include "device_layer.hpp"

namespace {

using test::DeviceLayer;
using test::LayerProblem;
using test::Model;
using test::Primary;
using test::Stream;
using Lengths = LayerProblem::Lengths;

const Model model{2, 128, 64, 128, 128};
constexpr std::int32_t bf16 = MLA_DTYPE_BFLOAT16;

/// How many runs of a layer were cuDNN's; they are right in any case.
long runs_served(LayerProblem& problem, const std::string& what, std::int64_t bound = 0) {
  const Stream stream;
  const DeviceLayer on_device(problem, 0, bound);
  const long before = test::executions();
  on_device.run(stream);
  stream.synchronize();
  problem.expect_right(what);
  return test::executions() - before;
}

void after_context() {
  const Primary primary;
  for (const Model& each : {model, Model{1, 64, 64, 128, 64}, Model{1, 192, 64, 256, 64}}) {
    for (const std::int32_t dtype : {MLA_DTYPE_BFLOAT16, MLA_DTYPE_FLOAT16}) {
      // One has no context, one no new tokens, one neither.
      LayerProblem problem(each, dtype, {dtype}, {70, 3, 0, 0, 1}, {30, 0, 9, 0, 66});
      EXPECT(runs_served(problem, "after context") == 1, "dtype %d", dtype);
    }
  }
}

void random_batches() {
  const Primary primary;
  std::mt19937 random(7);
  const auto any = [&](std::uint32_t below) { return static_cast<std::int32_t>(random() % below); };
  for (unsigned round = 0; round < 10; ++round) {
    Lengths lengths{2 + any(70)}, contexts{any(100)};
    for (std::int32_t i = any(5); i > 0; --i) {
      lengths.push_back(any(3) == 0 ? 0 : any(40));
      contexts.push_back(any(3) == 0 ? 0 : any(60));
    }
    gpu_machine_seed(round);
    LayerProblem problem(model, bf16, {bf16}, lengths, contexts, round, 8 * any(2));
    EXPECT(runs_served(problem, "a random batch") == 1, "round %u", round);
  }
}

/// New tokens alone are masked by their own numbers: both ways have a plan of their own, and
/// a plan none of the context's.
void plans() {
  const Primary primary;
  for (const long made : {2, 2}) {
    LayerProblem alone(model, bf16, {bf16}, {20, 3}, {0, 0}), after(model, bf16, {bf16}, {20, 3}, {30, 0});
    CHECK(runs_served(alone, "alone") == 1 && runs_served(after, "after context") == 1);
    EXPECT(gpu_cudnn_compilations() == made, "%ld plans", gpu_cudnn_compilations());
  }
  LayerProblem context(model, bf16, {bf16}, {20, 3}, {30, 0});
  context.flags = MLA_LAYER_CONTEXT_ONLY;
  CHECK(runs_served(context, "context") == 1 && gpu_cudnn_compilations() == 3);
}

/// Those of a backend that is warmed up are a layer's, too.
void plans_made_ahead() {
  const Primary primary;
  mla::backend("FLASH_ATTN", test::config_on(model)).warm_up();
  const long made = gpu_cudnn_compilations();
  for (const std::int32_t dtype : {MLA_DTYPE_BFLOAT16, MLA_DTYPE_FLOAT16}) {
    for (const Lengths& contexts : {Lengths{0, 0}, Lengths{300, 9}}) {
      LayerProblem problem(model, dtype, {dtype}, {20, 3}, contexts);
      const Stream stream;
      const DeviceLayer on_device(problem);
      on_device.upload(stream);
      mla_layer_forward_args args = on_device.args(stream);
      args.lse = nullptr;
      const long before = test::executions();
      on_device.layer().forward(args);
      stream.synchronize();
      CHECK(test::executions() > before);
    }
  }
  EXPECT(gpu_cudnn_compilations() == made, "%ld plans, not %ld", gpu_cudnn_compilations(), made);
}

/// Within a bound of memory some heads after the others, and some requests: those of one query
/// each are not cuDNN's.
void within_a_bound() {
  const Primary primary;
  const Model five{5, 128, 64, 128, 128};
  LayerProblem heads(five, bf16, {bf16}, {20, 2}, {300, 9});
  CHECK(runs_served(heads, "all heads") == 1);
  const long served = runs_served(heads, "some heads at a time", 900000);
  EXPECT(served > 1, "%ld runs", served);
  LayerProblem one(five, bf16, {bf16}, {1, 1}, {300, 9});
  CHECK(runs_served(one, "a query each") == 0);
}

/// Captured with its plan made, it joins the graph.
void captured() {
  const Primary primary;
  const Stream stream;
  LayerProblem problem(model, bf16, {bf16}, {20, 3}, {30, 17});
  CHECK(runs_served(problem, "before") == 1);
  const DeviceLayer on_device(problem);
  mla_layer_forward_args args = on_device.args(stream);
  const std::int64_t bytes = on_device.layer().workspace_size(args);
  const test::DeviceBytes memory(static_cast<std::size_t>(bytes));
  args.workspace = memory.pointer<void>(), args.workspace_size = bytes;
  on_device.upload(stream);
  const long before = test::executions();
  const test::CapturedGraph graph(stream, [&] { on_device.layer().forward(args); });
  CHECK(test::executions() == before + 1);
  graph.launch(stream);
  on_device.download(stream);
  stream.synchronize();
  problem.expect_right("replayed");
}

}  // namespace

int main(int argc, char** argv) {
  using test::isolated;
  setenv("MLA_CUDNN_LIBRARY", "libcudnn.so.9", 1);
  const test::Environment unkept{{"MLA_CACHE_DIR", "/proc/none"}};
  return test::run_on("90", argc, argv,
                      {isolated("cudnn: layers after context", after_context),
                       isolated("cudnn: random batches of layers", random_batches),
                       isolated("cudnn: plans of layers", plans, unkept),
                       isolated("cudnn: plans of layers made ahead", plans_made_ahead, unkept),
                       isolated("cudnn: layers within a bound", within_a_bound),
                       isolated("cudnn: captured layers", captured)});
}
