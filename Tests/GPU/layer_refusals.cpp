// What layers on devices refuse: a status and its text each.
//
// SPDX-License-Identifier: Apache-2.0
#include "device_layer.hpp"
#include "expectations.hpp"

namespace {

using test::DeviceArray;
using test::DeviceLayer;
using test::expect_status;
using test::hardware;
using test::invalid;
using test::LayerProblem;
using test::Model;
using test::Stream;

const Model model{2, 128, 64, 128, 128};
constexpr mla_status configuration = MLA_ERROR_UNSUPPORTED_CONFIGURATION;

/// A configuration and its weights, which may be changed before a layer is made.
struct Creation {
  explicit Creation(const Model& shape = model, std::int32_t dtype = MLA_DTYPE_BFLOAT16)
      : host(dtype, {shape.heads * (shape.nope + shape.v), shape.rank}),
        weights(host),
        config(shape.layer_config(weights.view())) {
    config.device_type = MLA_DEVICE_CUDA;
    weights.upload(host, nullptr);
    DRIVER(cuCtxSynchronize());
  }

  mla_status operator()() const {
    mla_layer* layer = nullptr;
    const mla_status status = mla_layer_create(&config, &layer);
    EXPECT((layer != nullptr) == (status == MLA_OK), "%s and a layer", mla_status_name(status));
    mla_layer_destroy(layer);
    return status;
  }

  test::Array host;
  DeviceArray weights;
  mla_layer_config config;
};

void configurations() {
  const test::Primary primary;
  const auto expect = [](const Creation& create, mla_status status, const std::string& text) {
    expect_status(create(), status, text);
  };
  expect(Creation({2, 128, 64, 128, 72}), configuration,
         "config.kv_lora_rank = 72: must be a multiple of 64 on a CUDA device");
  expect(Creation({2, 124, 68, 128, 128}), configuration, "config.qk_nope_head_dim = 124: must be a multiple of 8");
  expect(Creation({2, 136, 56, 124, 128}), configuration, "config.v_head_dim = 124: must be a multiple of 8");
  expect(Creation({2, 8, 8, 8, 64}), configuration, "No valid MLA prefill backend");
  Creation unknown({2, 8, 8, 8, 64});
  unknown.config.backend = "FLASH_ATTN";
  expect(unknown, configuration, "is not valid on CUDA device 0");
  expect(Creation({65536, 8, 0, 8, 64}), configuration, "config.num_heads = 65536: must be at most 65535");
  expect(Creation(model, MLA_DTYPE_FLOAT32), configuration, "config.dtype = ");
  Creation create;
  create.config.backend = "CPU";
  expect(create, hardware, "backend CPU does not run on CUDA devices");
  create.config.backend = nullptr;
  CHECK(create() == MLA_OK);
  create.config.device_id = 7;
  expect(create, invalid, "config.kv_b_proj.device_id = 0: must be 7, the device of this call");
  create.weights.view().device_id = 7;
  expect(create, invalid, "config.device_id = 7: must be below 2, the number of CUDA devices");
  create.config.device_type = MLA_DEVICE_ROCM;
  create.weights.view().device_type = MLA_DEVICE_ROCM;
  expect(create, hardware, "layers do not run on ROCm devices");
}

/// Weights of the host, of another device, of nobody.
void weights() {
  const test::Primary primary;
  Creation create;
  const mla::tensor right = create.weights.view();
  create.weights.view() = create.host.view();
  expect_status(create(), invalid, "config.kv_b_proj.device_type = 1: must be 2 (CUDA), the device of this call");
  create.weights.view() = right;
  create.weights.view().data = create.host.view().data;
  expect_status(create(), invalid, "config.kv_b_proj.data = 0x");
  expect_status(create(), invalid, "must be memory of CUDA device 0, is not CUDA's");
  create.weights.view() = right;
  create.weights.view().strides[0] = INT64_MAX;
  expect_status(create(), invalid, "config.kv_b_proj.strides = ");
  create.weights.view() = right;
  CHECK(create() == MLA_OK);
}

/// Whatever call of a creation fails: it says so, and nothing stays taken.
void any_call_of_a_creation() {
  const test::Primary primary;
  const Creation create;
  CHECK(create() == MLA_OK);
  std::size_t before = 0, after = 0, all = 0;
  DRIVER(cuMemGetInfo_v2(&before, &all));
  for (const char* function : {"cuMemcpyDtoH_v2", "cuMemAlloc_v2", "cuMemcpyHtoD_v2", "cuStreamSynchronize", "cuLibraryGetKernel",
                               "cuKernelSetAttribute", "cuThreadExchangeStreamCaptureMode", "cuCtxPushCurrent_v2"}) {
    gpu_machine_fail(function, CUDA_ERROR_OUT_OF_MEMORY, 1);
    expect_status(create(), MLA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY");
    gpu_machine_fail(nullptr, CUDA_SUCCESS, 0);
  }
  DRIVER(cuMemGetInfo_v2(&after, &all));
  CHECK(before == after);
}

void memory_of_others() {
  const test::Primary primary;
  const Stream stream;
  LayerProblem problem(model, MLA_DTYPE_BFLOAT16, {}, {20, 3}, {30, 17});
  DeviceLayer on_device(problem);
  on_device.upload(stream);
  const auto forward = [&](const mla_layer_forward_args& args) {
    return mla_layer_forward(on_device.layer().get(), &args);
  };
  const std::pair<DeviceArray*, const test::Array*> arrays[] = {
      {&on_device.q, &problem.q},     {&on_device.kv_c_normed, &problem.kv_c_normed}, {&on_device.k_pe, &problem.k_pe},
      {&on_device.out, &problem.out}, {&on_device.lse, &problem.lse},                 {&on_device.cache, &problem.cache}};
  const char* const names[] = {"q", "kv_c_normed", "k_pe", "out", "lse", "kv_cache"};
  for (int i = 0; i < 6; ++i) {
    const mla::tensor right = arrays[i].first->view();
    arrays[i].first->view().data = arrays[i].second->view().data;
    expect_status(forward(on_device.args(stream)), invalid, std::string(names[i]) + ".data = 0x");
    expect_status(forward(on_device.args(stream)), invalid, "must be memory of CUDA device 0, is not CUDA's");
    arrays[i].first->view() = right;
    arrays[i].first->view().device_type = MLA_DEVICE_CPU;
    expect_status(forward(on_device.args(stream)), invalid, std::string(names[i]) + ".device_type = 1");
    arrays[i].first->view() = right;
  }
  mla_layer_forward_args args = on_device.args(stream);
  args.block_table = problem.block_table.data();
  expect_status(forward(args), invalid, "block_table = 0x");
  args = on_device.args(stream);
  args.block_table = reinterpret_cast<const std::int32_t*>(on_device.table.address() + 2);
  expect_status(forward(args), invalid, "must be aligned to 4 bytes");
  args = on_device.args(stream);
  std::vector<std::uint8_t> memory(1 << 24);
  args.workspace = memory.data(), args.workspace_size = static_cast<std::int64_t>(memory.size());
  expect_status(forward(args), invalid, "workspace = 0x");
  args = on_device.args(stream);
  const test::Offsets far{0, 1 << 20};
  args.context_lens = far.data();
  expect_status(forward(args), invalid, "context_lens[1] = 1048576");
  const test::Offsets rows{0, 2};
  args = on_device.args(stream);
  args.block_table_rows = rows.data();
  expect_status(forward(args), invalid, "block_table_rows[1] = 2");
  args = on_device.args(stream);
  const test::Offsets selected(23, 0);
  args.topk_indices = selected.data(), args.topk_stride = args.topk = 1;
  expect_status(forward(args), MLA_ERROR_UNSUPPORTED_CONFIGURATION, "topk_indices = not NULL: is for layers on the CPU");
  args = on_device.args(stream);
  args.new_tokens_cached = 1;
  expect_status(forward(args), MLA_ERROR_UNSUPPORTED_CONFIGURATION, "new_tokens_cached = 1: is for layers on the CPU");
  mla::check(forward(on_device.args(stream)));
  on_device.download(stream);
  stream.synchronize();
  problem.expect_right("afterwards");
}

}  // namespace

int main(int argc, char** argv) {
  return test::run_on("90,80", argc, argv,
                      {{"device: configurations of layers", configurations},
                       {"device: weights that are not there", weights},
                       {"device: any call of a layer's creation", any_call_of_a_creation},
                       {"device: a layer's tensors of others", memory_of_others}});
}
