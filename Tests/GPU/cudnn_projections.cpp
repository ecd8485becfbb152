// Keys and values of layers by cuDNN: which rows it makes, and what is left to the library's own
// kernel.
//
// SPDX-License-Identifier: Apache-2.0
#include "cudnn_runs.hpp"
#include "device_layer.hpp"

namespace {

using test::CapturedGraph;
using test::DeviceLayer;
using test::executions;
using test::LayerProblem;
using test::Logged;
using test::Model;
using test::Primary;
using test::Stream;

constexpr std::int32_t bf16 = MLA_DTYPE_BFLOAT16, fp16 = MLA_DTYPE_FLOAT16;
/// Plans are for 128, 512 and 2048 rows; of half the heads, for 256 and more.
const Model wide{64, 128, 64, 128, 64};

/// A request of that many rows. Its outputs are of a type that leaves attention to the library's
/// own kernels.
LayerProblem problem_of(std::int32_t rows, const Model& model = wide, std::int32_t dtype = bf16, unsigned seed = 1) {
  LayerProblem made(model, dtype, {dtype}, {2}, {rows - 2}, seed);
  made.out = test::Array(MLA_DTYPE_FLOAT32, {2, model.heads, model.v});
  return made;
}

/// What cuDNN has been asked for in a run, which is right.
long executed(LayerProblem& problem, const DeviceLayer& on_device, const std::string& what) {
  const Stream stream;
  const long before = executions();
  on_device.run(stream);
  stream.synchronize();
  problem.expect_right(what);
  return executions() - before;
}
long executed(LayerProblem problem, const std::string& what, std::int64_t bound = 0) {
  return executed(problem, DeviceLayer(problem, 0, bound), what);
}

void expect_plans(std::int32_t rows, long plans, std::int32_t dtype = bf16) {
  const long got = executed(problem_of(rows, wide, dtype), std::to_string(rows) + " rows");
  EXPECT(got == plans, "%d rows by %ld plans, not %ld", static_cast<int>(rows), got, plans);
}

void what_it_serves() {
  const Primary primary;
  expect_plans(127, 0);
  expect_plans(128, 1);
  expect_plans(128, 1, fp16);
  expect_plans(300, 2, fp16);
  expect_plans(128 + 512 + 7, 2);
  expect_plans(2048 + 3, 1);
}

/// How many plans make up a batch's rows, the largest first.
long plans_of(std::int64_t rows, std::int64_t columns) {
  std::int64_t few = 128;
  while (few * columns < 1 << 21) few *= 2;
  return static_cast<long>(rows / (16 * few) + rows % (16 * few) / (4 * few) + rows % (4 * few) / few);
}

void random_batches() {
  const Primary primary;
  std::mt19937 random(9);
  const auto any = [&](std::uint32_t below) { return static_cast<std::int32_t>(random() % below); };
  const Model heads_of[] = {{1, 128, 64, 128, 64}, {1, 64, 64, 128, 64}, {1, 192, 64, 256, 64}};
  for (unsigned round = 0; round < 8; ++round) {
    Model model = heads_of[any(3)];
    model.heads = 30 + any(40);
    LayerProblem::Lengths lengths{1 + any(3)}, contexts{any(500)};
    for (std::int32_t i = any(4); i > 0; --i) lengths.push_back(any(3)), contexts.push_back(any(2) * any(200));
    LayerProblem problem(model, any(2) == 0 ? bf16 : fp16, {}, lengths, contexts, round, 8 * any(2));
    problem.out = test::Array(MLA_DTYPE_FLOAT32, {problem.q.size(0), model.heads, model.v});
    // What a request has been given before is of no use without new tokens.
    std::int64_t rows = problem.q.size(0);
    for (std::size_t i = 0; i < contexts.size(); ++i) rows += lengths[i] > 0 ? contexts[i] : 0;
    gpu_machine_seed(round);
    const long wanted = plans_of(rows, model.heads * (model.nope + model.v)), got = executed(problem, "a random batch");
    EXPECT(got == wanted, "round %u: %ld rows of %ld heads by %ld plans, not %ld", round, static_cast<long>(rows),
           static_cast<long>(model.heads), got, wanted);
  }
}

/// Both by cuDNN, whose attention wants outputs of q's type.
void with_attention() {
  const Primary primary;
  LayerProblem problem(wide, bf16, {}, {5, 3}, {120, 17});
  problem.flags = MLA_LAYER_CONTEXT_ONLY;
  CHECK(executed(problem, "both") == 2);
}

/// Some heads after the others: few numbers of them, whatever the bound is.
void groups_of_heads() {
  const Primary primary;
  const LayerProblem problem = problem_of(520);
  // Room for 64, 33, 23 and 16.
  for (const auto& [bound, plans] : std::vector<std::pair<std::int64_t, long>>{
           {31'000'000, 1}, {16'000'000, 2 * 2}, {11'000'000, 4}, {8'000'000, 4}}) {
    const long got = executed(problem, "within " + std::to_string(bound), bound);
    EXPECT(got == plans, "%ld within %ld", got, static_cast<long>(bound));
  }
  EXPECT(gpu_cudnn_compilations() == 3, "%ld plans", gpu_cudnn_compilations());
}

/// As before a registered backend's runs.
struct Forwarding {
  explicit Forwarding(const mla_backend_config& config) : inner("FLASH_ATTN", config) {}
  static bool supports_device(std::int32_t type, std::int32_t) { return type == MLA_DEVICE_CUDA; }
  void prepare_metadata(const mla_prefill_metadata& metadata) { inner.prepare_metadata(metadata); }
  void run_prefill_new_tokens(const mla_new_tokens_args& args) const {
    mla::check(mla_run_prefill_new_tokens(inner.get(), &args));
  }
  void run_prefill_context_chunk(const mla_context_chunk_args& args) const {
    mla::check(mla_run_prefill_context_chunk(inner.get(), &args));
  }
  mla::backend inner;
};

void registered_backend() {
  const Primary primary;
  mla::register_backend<Forwarding>("FORWARDING");
  LayerProblem problem(wide, bf16, {}, {1}, {140});
  CHECK(executed(problem, DeviceLayer(problem, 0, 0, "FORWARDING"), "forwarded") == 1);
}

/// A plan cannot be made beside a capture; one that there is joins it.
void captures() {
  const Primary primary;
  const Stream stream;
  LayerProblem problem = problem_of(130);
  const DeviceLayer on_device(problem);
  mla_layer_forward_args args = on_device.args(stream);
  const test::DeviceBytes memory(static_cast<std::size_t>(on_device.layer().workspace_size(args)));
  args.workspace = memory.pointer<void>(), args.workspace_size = on_device.layer().workspace_size(args);
  for (const bool is_made : {false, true}) {
    const long before = executions();
    const CapturedGraph graph(stream, [&] { on_device.layer().forward(args); });
    EXPECT(executions() - before == is_made, "a capture %s", is_made ? "with a plan" : "without");
    CHECK(gpu_cudnn_compilations() == is_made);
    on_device.upload(stream);
    graph.launch(stream);
    on_device.download(stream);
    stream.synchronize();
    problem.expect_right("a replay");
    CHECK(executed(problem, on_device, "outside of a capture") == 1);
  }
}

void turned_off() {
  const Primary primary;
  const Logged logged;
  CHECK(executed(problem_of(130), "by the library's own kernel") == 0 && logged.count("cuDNN") == 0);
}

/// Where it would split the depth: a layer has no memory for that.
void no_workspace() {
  const Primary primary;
  CHECK(executed(problem_of(130, {64, 128, 64, 128, 128}), "sums of parts of the depth") == 0);
  CHECK(gpu_cudnn_compilations() == 1);
  CHECK(executed(problem_of(130), "a depth that is whole") == 1);
}

/// Whatever call fails: results are right, and cuDNN is not asked again for what it refused.
void failures() {
  for (const char* function : {"cudnnCreate", "cudnnSetStream", "cudnnBackendCreateDescriptor", "cudnnBackendSetAttribute",
                               "cudnnBackendFinalize", "cudnnBackendExecute"}) {
    for (const int nth : {1, 2, 14}) {
      const int end = test::end_of([&] {
        try {
          const Logged logged;
          const Primary primary;
          gpu_cudnn_fail(function, 4000, nth);
          LayerProblem problem = problem_of(300);
          const DeviceLayer on_device(problem);
          executed(problem, on_device, "a failure");
          gpu_cudnn_fail(nullptr, 0, 0);
          const bool has_failed = logged.count("status 4000, ") > 0;
          CHECK((executed(problem, on_device, "afterwards") == 0) == has_failed);
          EXPECT(logged.count("cuDNN does not serve a projection") == has_failed, "%s fails, and it is not said once", function);
        } catch (const std::exception& failure) {
          std::printf("  %s, call %d: %s\n", function, nth, failure.what());
          std::fflush(stdout);
          _exit(1);
        }
      });
      EXPECT(end == 0, "%s, call %d ends with %d", function, nth, end);
    }
  }
}

/// Plans that are there before the first run; another device of the kind has them from files.
void made_ahead() {
  {
    const Primary primary;
    mla_backend_config config = test::config_on(wide);
    mla::backend("FLASH_ATTN", config).warm_up();
    const long made = gpu_cudnn_compilations();
    CHECK(executed(problem_of(650), "made ahead") == 2 && gpu_cudnn_compilations() == made);
  }
  const Primary second(1);
  LayerProblem problem = problem_of(650);
  const long made = gpu_cudnn_compilations(), loaded = gpu_cudnn_loads();
  CHECK(executed(problem, DeviceLayer(problem, 1), "another device") == 2);
  CHECK(gpu_cudnn_compilations() == made && gpu_cudnn_loads() == loaded + 2);
}

}  // namespace

int main(int argc, char** argv) {
  using test::isolated;
  setenv("MLA_CUDNN_LIBRARY", "libcudnn.so.9", 1);
  return test::run_on(
      "90,90", argc, argv,
      {isolated("cudnn: rows of a projection", what_it_serves),
       isolated("cudnn: random batches of projections", random_batches),
       isolated("cudnn: a projection and its attention", with_attention),
       isolated("cudnn: projections of groups of heads", groups_of_heads, {{"MLA_CACHE_DIR", "/proc/none"}}),
       isolated("cudnn: a projection for a registered backend", registered_backend),
       isolated("cudnn: captured projections", captures, {{"MLA_CACHE_DIR", "/proc/none"}}),
       isolated("cudnn: projections without it", turned_off, {{"MLA_CUDNN_LIBRARY", "off"}}),
       isolated("cudnn: a projection that wants memory", no_workspace,
                {{"MLA_TEST_GPUS", "80"}, {"MLA_CACHE_DIR", "/proc/none"}}),
       isolated("cudnn: any call of a projection's fails", failures, {{"MLA_CACHE_DIR", "/proc/none"}}),
       isolated("cudnn: projections' plans made ahead", made_ahead)});
}
