// Attention by cuDNN: what it serves, and what is left to the library's own kernels.
//
// SPDX-License-Identifier: Apache-2.0
#include "cudnn_runs.hpp"

namespace {

using test::Attention;
using test::CapturedGraph;
using test::CuDNNRun;
using test::Model;
using test::Primary;
using test::Stream;
using Lengths = std::vector<std::int32_t>;

const Model model{2, 64, 64, 128, 512};
constexpr std::int32_t bf16 = MLA_DTYPE_BFLOAT16;

Attention new_tokens(const Lengths& lengths, std::int64_t padding = 0) {
  return Attention::new_tokens(model, bf16, lengths, 3, padding);
}
Attention context(const Lengths& queries, const Lengths& keys) {
  return Attention::context(model, bf16, queries, keys, 4);
}

void what_it_serves() {
  const Primary primary;
  for (const Model& each : {Model{2, 128, 64, 128, 512}, Model{1, 192, 64, 256, 512}, Model{3, 64, 64, 128, 512}}) {
    for (const std::int32_t dtype : {MLA_DTYPE_BFLOAT16, MLA_DTYPE_FLOAT16}) {
      for (const std::int64_t padding : {0, 8}) {
        CuDNNRun own(Attention::new_tokens(each, dtype, {70, 0, 1, 33}, 3, padding));
        CHECK(own.is_served("new tokens"));
        // Of the requests one has no keys: it gets 0 and -inf.
        CuDNNRun chunk(Attention::context(each, dtype, {9, 3, 0, 66}, {70, 0, 11, 130}, 4, padding));
        CHECK(chunk.is_served("context"));
      }
    }
  }
}

void random_batches() {
  const Primary primary;
  std::mt19937 random(5);
  const auto any = [&](std::uint32_t below) { return static_cast<std::int32_t>(random() % below); };
  for (unsigned round = 0; round < 12; ++round) {
    Lengths queries{2 + any(140)}, keys{2 + any(200)};
    for (std::int32_t i = any(5); i > 0; --i) {
      queries.push_back(any(3) == 0 ? 0 : any(40));
      keys.push_back(any(3) == 0 ? 0 : any(60));
    }
    gpu_machine_seed(round);
    const std::string what = "round " + std::to_string(round);
    CHECK(CuDNNRun(new_tokens(queries, 8 * any(3))).is_served(what));
    CHECK(CuDNNRun(context(queries, keys)).is_served(what + ", context"));
  }
}

/// More offsets than a launch carries.
void thousands_of_requests() {
  const Primary primary;
  for (const std::size_t count : {999, 1000, 2300, 4096, 4097}) {
    Lengths lengths(count, 0);
    lengths.front() = 3;
    lengths[count / 2] = 5;
    lengths.back() = 2;
    EXPECT(CuDNNRun(new_tokens(lengths)).is_served("requests") == (count <= 4096), "%d requests", static_cast<int>(count));
    lengths[1] = 4;
    Lengths keys(count, 2);
    EXPECT(CuDNNRun(context(lengths, keys)).is_served("context") == (count <= 4096), "%d requests", static_cast<int>(count));
  }
}

/// What no instruction of 16 bytes reads: cuDNN is not even asked.
void layouts() {
  const test::Logged logged;
  const Primary primary;
  CHECK(CuDNNRun(new_tokens({9, 30})).is_served("dense"));
  CHECK(CuDNNRun(new_tokens({9, 30}), 16).is_served("16 bytes on"));
  CHECK(!CuDNNRun(new_tokens({9, 30}), 2).is_served("2 bytes on"));
  for (const int moved : {0, 1, 2, 3, 4}) {
    CuDNNRun run(new_tokens({9, 30}));
    const test::Array* const hosts[] = {&run.host.q, &run.host.k, &run.host.v, &run.host.out, &run.host.lse};
    test::DeviceArray* const tensors[] = {&run.on_device.q, &run.on_device.k, &run.on_device.v, &run.on_device.out,
                                          &run.on_device.lse};
    const test::DeviceArray elsewhere(*hosts[moved], 0, 8);
    tensors[moved]->view().data = elsewhere.view().data;
    EXPECT(!run.is_served("8 bytes on"), "tensor %d", moved);
  }
  CHECK(!CuDNNRun(new_tokens({9, 30}, 1)).is_served("rows of odd strides"));
  CHECK(!CuDNNRun(new_tokens({9, 30}, 4)).is_served("rows of strides of 8 bytes"));
  CHECK(!CuDNNRun(Attention::new_tokens({1, 64, 64, 128, 512}, bf16, {9, 30}, 3, 4)).is_served("tokens of odd strides"));
  // One row for all keys.
  CuDNNRun one(context({9}, {30}));
  one.host.k.each([&](std::int64_t i, std::int64_t j, std::int64_t d) { one.host.k.set(i, j, d, one.host.k.at(0, j, d)); });
  one.on_device.k.view().strides[0] = 0;
  CHECK(!one.is_served("one row for all keys"));
  CHECK(logged.count("does not serve") == 0);
}

/// v as a view of wider rows, as vLLM's kv_nope is; without lse; rows beyond the batch.
void views() {
  const Primary primary;
  const Stream stream;
  CuDNNRun run(new_tokens({40, 21}));
  test::Array wide(bf16, {61, model.heads, 256});
  run.host.v.each([&](std::int64_t i, std::int64_t j, std::int64_t k) {
    wide.set(i, j, 128 + k, run.host.v.at(i, j, k));
  });
  const test::DeviceArray device_wide(wide);
  run.on_device.upload(stream);
  device_wide.upload(wide, stream);
  const long before = test::executions();
  const auto launch = [&](const mla::tensor* lse) {
    run.backend.run_prefill_new_tokens(run.on_device.q.view(), run.on_device.k.view(),
                                       device_wide.view().narrow(2, 128, 256), run.on_device.out.view(), lse,
                                       run.on_device.scratch, stream);
  };
  launch(&run.on_device.lse.view());
  run.on_device.download(stream);
  run.check("a view");
  const test::Array expected = run.host.out;
  run.host.out = test::Array(bf16, {61, model.heads, model.v});
  run.host.lse = test::Array(MLA_DTYPE_FLOAT32, {model.heads, 61});
  run.on_device.upload(stream);
  run.backend.prepare_metadata(test::Offsets{0, 40});
  launch(nullptr);
  run.on_device.download(stream);
  CHECK(test::executions() == before + 2);
  run.host.out.each([&](std::int64_t i, std::int64_t j, std::int64_t k) {
    const double got = run.host.out.at(i, j, k);
    EXPECT(i < 40 ? got == expected.at(i, j, k) : std::isnan(got), "row %d: %g", static_cast<int>(i), got);
  });
  CHECK(std::isnan(run.host.lse.at(0, 0)));
}

/// No prefill: one query or one key at most in each request.
void lengths() {
  const Primary primary;
  CHECK(CuDNNRun(new_tokens({1, 2, 1})).is_served("two tokens"));
  CHECK(!CuDNNRun(new_tokens({1, 1, 0, 1})).is_served("a token each"));
  CHECK(!CuDNNRun(context({1, 1}, {40, 30})).is_served("a query each"));
  CHECK(!CuDNNRun(context({7, 9}, {1, 0})).is_served("a key each"));
  CHECK(!CuDNNRun(context({7, 9}, {0, 0})).is_served("no keys"));
}

void scales() {
  const Primary primary;
  for (const double scale : {0.05, 0.0, -0.05}) {
    mla_backend_config config = test::config_on(model);
    config.scale = scale;
    CuDNNRun run(new_tokens({40, 21}), config);
    const Stream stream;
    const long before = test::executions();
    run.on_device.upload(stream);
    run.on_device.launch(run.backend, stream);
    stream.synchronize();
    EXPECT((test::executions() > before) == (scale > 0), "a scale of %g", scale);
  }
}

void outputs_of_other_types() {
  const Primary primary;
  for (const std::int32_t dtype : {MLA_DTYPE_BFLOAT16, MLA_DTYPE_FLOAT32, MLA_DTYPE_FLOAT16}) {
    Attention problem = new_tokens({30, 50});
    problem.out = test::Array(dtype, {80, model.heads, model.v});
    EXPECT(CuDNNRun(problem).is_served("an output") == (dtype == bf16), "dtype %d", dtype);
  }
}

void quantized() {
  const Primary primary;
  const float scale = 0.01F;
  Attention problem = new_tokens({30, 50});
  problem.out = test::Array(MLA_DTYPE_FLOAT8_E4M3FN, {80, model.heads, model.v});
  const CuDNNRun run(problem);
  const Stream stream;
  run.on_device.upload(stream);
  mla_new_tokens_args args = MLA_NEW_TOKENS_ARGS_INIT;
  args.q = &run.on_device.q.view(), args.k = &run.on_device.k.view(), args.v = &run.on_device.v.view();
  args.out = &run.on_device.out.view(), args.output_scale = &scale, args.stream = stream;
  args.workspace = run.on_device.scratch.data, args.workspace_size = run.on_device.scratch.size;
  run.backend.run_prefill_new_tokens(args);
  stream.synchronize();
  CHECK(test::executions() == 0);
}

void workspaces() {
  const Primary primary;
  CuDNNRun run(new_tokens({40, 21}));
  const std::int64_t whole = run.on_device.scratch.size;
  CHECK(whole > 17408 && run.backend.workspace_size() == whole && run.is_served("what is asked for"));
  // Of the stream's memory then, which has it back.
  CuDNNRun none(new_tokens({40, 21}));
  const Stream stream;
  for (const mla::workspace& small : {mla::workspace{}, mla::workspace{run.on_device.scratch.data, 4096}}) {
    none.on_device.scratch = small;
    std::size_t before = 0, after = 0, all = 0;
    DRIVER(cuMemGetInfo_v2(&before, &all));
    CHECK(none.is_served("no workspace"));
    DRIVER(cuCtxSynchronize());
    DRIVER(cuMemGetInfo_v2(&after, &all));
    CHECK(before == after);
    gpu_machine_fail("cuMemAllocAsync", CUDA_ERROR_OUT_OF_MEMORY, 1);
    CHECK(!none.is_served("no memory either"));
    const long executed = test::executions(), taken = gpu_machine_calls("cuMemAllocAsync");
    const CapturedGraph graph(stream, [&] { none.on_device.launch(none.backend, stream); });
    CHECK(test::executions() == executed && gpu_machine_calls("cuMemAllocAsync") == taken);
  }
  // At any address, to the byte: 64 offsets fill their place, and nothing behind it is touched.
  CuDNNRun chunk(context(Lengths(63, 2), Lengths(63, 3)));
  std::int64_t least = chunk.on_device.scratch.size;
  for (std::int64_t bytes = least; bytes > 0; --bytes) {
    const test::DeviceBytes memory(static_cast<std::size_t>(bytes) + 1);
    chunk.on_device.scratch = {memory.pointer<char>() + 1, bytes};
    const long taken = gpu_machine_calls("cuMemAllocAsync");
    CHECK(chunk.is_served("an odd address"));
    if (gpu_machine_calls("cuMemAllocAsync") > taken) break;
    least = bytes;
  }
  EXPECT(least == 255 + 17408 + 2 * 256, "%d bytes do", static_cast<int>(least));
  test::Array host(MLA_DTYPE_FLOAT32, {1, 100000});
  none.on_device.scratch = {host.view().data, 400000};
  try {
    none.is_served("a workspace of the host's");
    test::fail("a workspace of the host's was taken");
  } catch (const mla::error& refusal) {
    EXPECT(std::string(refusal.what()).find("workspace = 0x") == 0, "%s", refusal.what());
  }
}

/// A plan cannot be made beside a capture; one that there is joins it.
void captures() {
  const Primary primary;
  const Stream stream;
  CuDNNRun run(new_tokens({40, 21}));
  for (const bool is_made : {false, true}) {
    const long before = test::executions();
    const CapturedGraph graph(stream, [&] { run.on_device.launch(run.backend, stream); });
    EXPECT((test::executions() > before) == is_made, "a capture %s", is_made ? "with a plan" : "without");
    // The batch is that of the capture.
    run.backend.prepare_metadata(test::Offsets{0, 1});
    for (unsigned seed = 7; seed < 9; ++seed) {
      run.host = Attention::new_tokens(model, bf16, {40, 21}, seed);
      run.on_device.upload(stream);
      graph.launch(stream);
      run.on_device.download(stream);
      run.check("a replay");
    }
    run.on_device.prepare(run.backend);
    CHECK(run.is_served("outside of a capture"));
  }
}

}  // namespace

int main(int argc, char** argv) {
  using test::isolated;
  setenv("MLA_CUDNN_LIBRARY", "libcudnn.so.9", 1);
  return test::run_on(
      "90", argc, argv,
      {isolated("cudnn: what it serves", what_it_serves),
       isolated("cudnn: random batches", random_batches),
       isolated("cudnn: thousands of requests", thousands_of_requests),
       isolated("cudnn: layouts", layouts),
       isolated("cudnn: views, rows beyond the batch, no lse", views),
       isolated("cudnn: lengths", lengths),
       isolated("cudnn: scales", scales),
       isolated("cudnn: outputs of other types", outputs_of_other_types),
       isolated("cudnn: fp8 outputs", quantized),
       isolated("cudnn: workspaces", workspaces),
       isolated("cudnn: captures", captures, {{"MLA_CACHE_DIR", "/proc/none"}})});
}
