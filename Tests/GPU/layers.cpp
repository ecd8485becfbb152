// Layers on a device: what those of the CPU give.
//
// SPDX-License-Identifier: Apache-2.0
#include "device_layer.hpp"
#include "expectations.hpp"

namespace {

using test::DeviceLayer;
using test::LayerCache;
using test::LayerProblem;
using test::Model;
using test::Stream;

const std::vector<std::int32_t> dtypes{MLA_DTYPE_BFLOAT16, MLA_DTYPE_FLOAT16};
const Model small{2, 128, 64, 128, 128}, deepseek{2, 128, 64, 128, 512};

void run(LayerProblem& problem, const std::string& what, std::int64_t bound = 0, std::size_t shift = 0) {
  const Stream stream;
  const DeviceLayer on_device(problem, 0, bound, "FLASH_ATTN", shift);
  on_device.run(stream);
  stream.synchronize();
  problem.expect_right(what);
}

void dimensions() {
  const test::Primary primary;
  for (const Model& model : {deepseek, small, Model{1, 64, 64, 128, 64}, Model{1, 192, 64, 256, 64}}) {
    for (const std::int32_t dtype : dtypes) {
      LayerProblem problem(model, dtype, {dtype}, {70, 0, 1, 3}, {30, 9, 0, 66});
      run(problem, std::to_string(model.qk()) + "/" + std::to_string(model.v) + " " + test::dtype_name(dtype));
    }
  }
}

const std::vector<std::pair<std::string, LayerCache>> caches{
    {"bf16", {MLA_DTYPE_BFLOAT16}},
    {"fp32, blocks of one token", {MLA_DTYPE_FLOAT32, MLA_CACHE_FORMAT_PLAIN, 0, 1}},
    {"fp8", {MLA_DTYPE_FLOAT8_E4M3FN, MLA_CACHE_FORMAT_PLAIN, 0.02F, 16}},
    {"fp16 of two tensors", {MLA_DTYPE_FLOAT16, MLA_CACHE_FORMAT_PLAIN, 0, 7, true}},
    {"fp8_ds_mla", {MLA_DTYPE_FLOAT8_E4M3FN, MLA_CACHE_FORMAT_FP8_DS_MLA, 0, 4}}};

void every_cache() {
  const test::Primary primary;
  for (const auto& [name, cache] : caches) {
    LayerProblem problem(deepseek, MLA_DTYPE_BFLOAT16, cache, {5, 9}, {21, 40});
    run(problem, name);
  }
}

/// Strides and addresses that no wide instruction takes, NaN between the rows.
void any_layout() {
  const test::Primary primary;
  for (const std::int64_t padding : {1, 8}) {
    for (const std::size_t shift : {0, 2, 16}) {
      LayerProblem problem(small, MLA_DTYPE_BFLOAT16, {}, {65, 3}, {0, 17}, 5, padding);
      run(problem, "padding " + std::to_string(padding) + " shift " + std::to_string(shift), 0, shift);
    }
  }
}

void outputs() {
  const test::Primary primary;
  for (const std::int32_t out : {MLA_DTYPE_FLOAT32, MLA_DTYPE_FLOAT16, MLA_DTYPE_FLOAT8_E4M3FN}) {
    for (const std::int64_t bound : {0, 600000}) {
      LayerProblem problem(small, MLA_DTYPE_BFLOAT16, {}, {30, 4}, {250, 9});
      problem.out = test::Array(out, {34, small.heads, small.v}, 3);
      if (out == MLA_DTYPE_FLOAT8_E4M3FN) problem.output_scale = 0.02F;
      run(problem, std::string(test::dtype_name(out)) + " within " + std::to_string(bound), bound);
    }
  }
}

/// Some requests, and of these some heads, after the others: with the same bits where it is
/// not cuDNN that may serve some of them.
void within_a_bound() {
  const test::Primary primary;
  const Model model{5, 128, 64, 128, 128};
  const bool has_own_kernels_alone = std::getenv("MLA_CUDNN_LIBRARY") == std::string("off");
  for (const std::int32_t dtype : dtypes) {
    LayerProblem problem(model, dtype, {dtype}, {20, 0, 1, 3, 2}, {300, 9, 0, 170, 1});
    const mla_layer_forward_args batch = problem.batch();
    gpu_machine_seed(1);
    run(problem, test::dtype_name(dtype));
    const auto out = problem.out.bytes(), lse = problem.lse.bytes();
    for (const std::int64_t bound : {1600000, 800000, 500000}) {
      CHECK(DeviceLayer(problem, 0, bound).layer().workspace_size(batch) <= bound);
      // What the run before has left would be right.
      problem.out = test::Array(dtype, {26, model.heads, model.v});
      problem.lse = test::Array(MLA_DTYPE_FLOAT32, {model.heads, 26});
      gpu_machine_seed(1);
      run(problem, test::dtype_name(dtype), bound);
      const bool is_same = problem.out.bytes() == out && problem.lse.bytes() == lse;
      EXPECT(is_same || !has_own_kernels_alone, "other bits within %d", static_cast<int>(bound));
    }
    const DeviceLayer none(problem, 0, 10000);
    std::int64_t bytes = 0;
    test::expect_status(mla_layer_workspace_size(none.layer().get(), &batch, &bytes), test::invalid,
                        "config.workspace_bound = 10000: this batch needs ");
  }
}

/// Whoever else is in the batch.
void bits_of_a_request() {
  const test::Primary primary;
  const LayerProblem::Lengths lengths{20, 65, 3}, contexts{30, 70, 0};
  LayerProblem problem(small, MLA_DTYPE_BFLOAT16, {}, lengths, contexts);
  gpu_machine_seed(1);
  run(problem, "all of them");
  const test::Array out = problem.out;
  // The others have no new tokens.
  problem.query_start_loc = {0, 0, 65, 65};
  for (test::Array* array : {&problem.q, &problem.kv_c_normed, &problem.k_pe}) {
    const test::Array all = *array;
    all.each([&](std::int64_t i, std::int64_t j, std::int64_t k) {
      if (i < 65) array->set(i, j, k, all.at(i + 20, j, k));
    });
    array->view().shape[0] = 65;
  }
  problem.out = test::Array(MLA_DTYPE_BFLOAT16, {65, small.heads, small.v});
  problem.lse = test::Array(MLA_DTYPE_FLOAT32, {small.heads, 65});
  gpu_machine_seed(1);
  run(problem, "one of them");
  problem.out.each([&](std::int64_t row, std::int64_t head, std::int64_t d) {
    EXPECT(problem.out.at(row, head, d) == out.at(row + 20, head, d), "row %d", static_cast<int>(row));
  });
}

void context_only() {
  const test::Primary primary;
  for (const std::int64_t bound : {0, 450000}) {
    LayerProblem problem(small, MLA_DTYPE_BFLOAT16, {}, {20, 2, 1, 3}, {300, 0, 7, 170});
    problem.flags = MLA_LAYER_CONTEXT_ONLY;
    run(problem, "within " + std::to_string(bound), bound);
  }
  LayerProblem nobody(small, MLA_DTYPE_BFLOAT16, {}, {3, 1}, {0, 0});
  nobody.flags = MLA_LAYER_CONTEXT_ONLY;
  run(nobody, "nobody has context");
}

/// More of them than a launch has.
void many_requests() {
  const test::Primary primary;
  LayerProblem::Lengths lengths, contexts;
  for (int i = 0; i < 150; ++i) lengths.push_back(i % 3), contexts.push_back(i % 5);
  LayerProblem problem({1, 64, 64, 128, 64}, MLA_DTYPE_BFLOAT16, {}, lengths, contexts);
  run(problem, "150 requests");
}

/// A backend of the host's: what it gets is what another backend takes.
struct Forwarding {
  explicit Forwarding(const mla_backend_config& config) : inner("FLASH_ATTN", config) {}
  static bool supports_device(std::int32_t type, std::int32_t) { return type == MLA_DEVICE_CUDA; }
  void prepare_metadata(const mla_prefill_metadata& metadata) { inner.prepare_metadata(metadata); }
  void run_prefill_new_tokens(const mla_new_tokens_args& args) const {
    ++runs;
    mla::check(mla_run_prefill_new_tokens(inner.get(), &args));
  }
  void run_prefill_context_chunk(const mla_context_chunk_args& args) const {
    ++runs;
    mla::check(mla_run_prefill_context_chunk(inner.get(), &args));
  }

  mla::backend inner;
  static inline int runs;
};

void registered_backend() {
  const test::Primary primary;
  const Stream stream;
  mla::register_backend<Forwarding>("FORWARDING");
  for (const std::uint64_t flags : {0, +MLA_LAYER_CONTEXT_ONLY}) {
    LayerProblem problem(small, MLA_DTYPE_BFLOAT16, {}, {20, 0, 1, 3}, {300, 9, 0, 170});
    problem.flags = flags;
    Forwarding::runs = 0;
    const DeviceLayer on_device(problem, 0, 450000, "FORWARDING");
    on_device.run(stream);
    stream.synchronize();
    problem.expect_right("forwarded");
    CHECK(Forwarding::runs > 3);
  }
  mla::check(mla_remove_backend("FORWARDING"));
}

/// In the caller's memory a call takes none of its own, and can be captured.
void in_a_workspace() {
  const test::Primary primary;
  const Stream stream;
  LayerProblem problem(small, MLA_DTYPE_BFLOAT16, {}, {20, 3}, {30, 17});
  const DeviceLayer on_device(problem);
  mla_layer_forward_args args = on_device.args(stream);
  const std::int64_t bytes = on_device.layer().workspace_size(args);
  const test::DeviceBytes memory(static_cast<std::size_t>(bytes));
  args.workspace = memory.pointer<void>(), args.workspace_size = bytes;
  on_device.upload(stream);
  gpu_machine_fail("cuMemAllocAsync", CUDA_ERROR_OUT_OF_MEMORY, 0);
  const test::CapturedGraph graph(stream, [&] { on_device.layer().forward(args); });
  gpu_machine_fail(nullptr, CUDA_SUCCESS, 0);
  stream.synchronize();
  graph.launch(stream);
  on_device.download(stream);
  stream.synchronize();
  problem.expect_right("replayed");
  args.workspace_size = bytes - 1;
  test::expect_status(mla_layer_forward(on_device.layer().get(), &args), test::invalid, "workspace_size = ");
}

void without_a_workspace() {
  const test::Primary primary;
  const Stream stream;
  LayerProblem problem(small, MLA_DTYPE_BFLOAT16, {}, {20, 3}, {30, 17});
  const DeviceLayer on_device(problem);
  on_device.upload(stream);
  const mla_layer_forward_args args = on_device.args(stream);
  const auto forward = [&] { return mla_layer_forward(on_device.layer().get(), &args); };
  const test::CapturedGraph graph(stream, [&] {
    test::expect_status(forward(), test::invalid, "workspace = NULL: must be given while the stream is captured");
  });
  for (const char* function : {"cuMemAllocAsync", "cuStreamIsCapturing", "cuLaunchKernel"}) {
    gpu_machine_fail(function, CUDA_ERROR_OUT_OF_MEMORY, 1);
    test::expect_status(forward(), MLA_ERROR_OUT_OF_MEMORY, function);
  }
  stream.synchronize();
  std::size_t before = 0, after = 0, all = 0;
  DRIVER(cuMemGetInfo_v2(&before, &all));
  mla::check(forward());
  on_device.download(stream);
  stream.synchronize();
  DRIVER(cuMemGetInfo_v2(&after, &all));
  CHECK(before == after);
  problem.expect_right("afterwards");
}

/// A block that is none spoils the results of its request alone.
void blocks_that_are_none() {
  const test::Primary primary;
  const Stream stream;
  LayerProblem problem(small, MLA_DTYPE_BFLOAT16, {}, {4, 5}, {20, 31});
  const DeviceLayer on_device(problem);
  on_device.upload(stream);
  const std::vector<std::int32_t> none{-1, 1 << 30, INT32_MIN};
  // Row 0 of the table is the second request's.
  DRIVER(cuMemcpyHtoDAsync_v2(on_device.table.address(), none.data(), 12, stream));
  on_device.layer().forward(on_device.args(stream));
  on_device.download(stream);
  stream.synchronize();
  const LayerProblem::Result right = problem.expected();
  for (std::int64_t row = 0; row < 4; ++row) {
    const double got = problem.lse.at(0, row), wanted = right.lse.at(0, row);
    EXPECT(std::fabs(got - wanted) < 2e-2, "%g, not %g", got, wanted);
  }
}

/// fp8 with scales, brought to the layer's dtype when it is made.
void quantized_weights() {
  const test::Primary primary;
  const Stream stream;
  LayerProblem problem(small, MLA_DTYPE_BFLOAT16, {}, {20, 3}, {30, 17});
  const std::int64_t rows = problem.kv_b_proj.size(0);
  test::Array weights(MLA_DTYPE_FLOAT8_E4M3FN, {rows, small.rank}), scales(MLA_DTYPE_FLOAT32, {rows, 1});
  std::mt19937 random(3);
  weights.fill(random, 30);
  for (std::int64_t row = 0; row < rows; ++row) scales.set(row, 0, 0, std::ldexp(1.0, -8 - static_cast<int>(row % 3)));
  problem.kv_b_proj.each([&](std::int64_t i, std::int64_t j, std::int64_t) {
    problem.kv_b_proj.set(i, j, 0, weights.at(i, j) * scales.at(i, 0));
  });
  const test::DeviceArray device_weights(weights), device_scales(scales);
  device_weights.upload(weights, stream), device_scales.upload(scales, stream);
  stream.synchronize();
  mla_layer_config config = problem.config(problem.dtype, weights);
  config.kv_b_proj = &device_weights.view(), config.weight_scales = &device_scales.view();
  config.device_type = MLA_DEVICE_CUDA;
  const mla::layer layer(config);
  const DeviceLayer on_device(problem);
  on_device.upload(stream);
  layer.forward(on_device.args(stream));
  on_device.download(stream);
  stream.synchronize();
  problem.expect_right("fp8 weights");
}

void two_devices() {
  LayerProblem problem(small, MLA_DTYPE_BFLOAT16, {}, {20, 3}, {30, 17});
  for (const CUdevice device : {1, 0}) {
    const test::Primary primary(device);
    const Stream stream;
    const DeviceLayer on_device(problem, device);
    on_device.run(stream);
    stream.synchronize();
    problem.expect_right("device " + std::to_string(device));
  }
}

void nothing_to_do() {
  const test::Primary primary;
  const Stream stream;
  LayerProblem problem(small, MLA_DTYPE_BFLOAT16, {}, {0, 0}, {5, 0});
  const DeviceLayer on_device(problem);
  on_device.run(stream);
  mla_layer_forward_args args = on_device.args(stream);
  CHECK(on_device.layer().workspace_size(args) == 0);
  args.num_requests = 0;
  on_device.layer().forward(args);
}

}  // namespace

int main(int argc, char** argv) {
  return test::run_on("90,80", argc, argv,
                      {{"device: dimensions and dtypes of layers", dimensions},
                       {"device: caches of every kind", every_cache},
                       {"device: a layer's tensors anywhere", any_layout},
                       {"device: a layer's outputs of any dtype", outputs},
                       {"device: a layer within a bound", within_a_bound},
                       {"device: bits of a layer's request", bits_of_a_request},
                       {"device: a layer's context alone", context_only},
                       {"device: a layer's 150 requests", many_requests},
                       {"device: a layer's registered backend", registered_backend},
                       {"device: a layer in a workspace, captured", in_a_workspace},
                       {"device: a layer without a workspace", without_a_workspace},
                       {"device: a layer's blocks that are none", blocks_that_are_none},
                       {"device: a layer's fp8 weights", quantized_weights},
                       {"device: layers on two devices", two_devices},
                       {"device: a layer with nothing to do", nothing_to_do}});
}
