// What is refused on devices: a status and its text each, and nothing that hangs.
//
// SPDX-License-Identifier: Apache-2.0
#include "expectations.hpp"
#include "launches.hpp"

namespace {

using test::Attention;
using test::create;
using test::DeviceAttention;
using test::expect_status;
using test::hardware;
using test::internal;
using test::invalid;
using test::Model;
using test::Primary;
using test::Stream;

const Model model{2, 64, 64, 128, 512};

/// A problem on the current device, and a run of it that may be changed before.
struct Run {
  explicit Run(CUdevice device = 0)
      : host(Attention::new_tokens(model, MLA_DTYPE_BFLOAT16, {9, 3}, 1)),
        on_device(host, device),
        backend("FLASH_ATTN", test::config_on(model, device)) {
    on_device.prepare(backend);
    on_device.upload(nullptr);
    DRIVER(cuCtxSynchronize());
  }

  mla_status operator()(CUstream stream = nullptr) const {
    mla_new_tokens_args args = MLA_NEW_TOKENS_ARGS_INIT;
    args.q = &on_device.q.view(), args.k = &on_device.k.view(), args.v = &on_device.v.view();
    args.out = &on_device.out.view(), args.lse = &on_device.lse.view();
    args.workspace = on_device.scratch.data, args.workspace_size = on_device.scratch.size;
    args.stream = stream;
    return mla_run_prefill_new_tokens(backend.get(), &args);
  }

  /// As any other, and right.
  void expect_to_work() {
    mla::check((*this)());
    on_device.download(nullptr);
    test::expect_close(host, test::reference_of(host), "afterwards");
  }

  Attention host;
  DeviceAttention on_device;
  mla::backend backend;
};

mla_status status_of(CUresult error) {
  switch (error) {
    case CUDA_ERROR_OUT_OF_MEMORY: return MLA_ERROR_OUT_OF_MEMORY;
    case CUDA_ERROR_NOT_INITIALIZED:
    case CUDA_ERROR_NO_DEVICE:
    case CUDA_ERROR_NO_BINARY_FOR_GPU: return hardware;
    default: return internal;
  }
}

constexpr CUresult some_errors[] = {CUDA_ERROR_OUT_OF_MEMORY, CUDA_ERROR_NO_DEVICE,
                                    CUDA_ERROR_LAUNCH_FAILED, CUDA_ERROR_UNKNOWN, 12345};

std::string name_of(CUresult error) {
  const char* name = nullptr;
  return cuGetErrorName(error, &name) == CUDA_SUCCESS ? name : "CUDA error " + std::to_string(error);
}

/// Without the version that a symbol ends with.
std::string without_version(const std::string& function) { return function.substr(0, function.find("_v2")); }

/// Whatever call of a creation fails: it says so, and the next creation works.
void any_call_of_a_creation() {
  for (const char* function :
       {"cuInit", "cuDriverGetVersion", "cuDeviceGetCount", "cuDeviceGet", "cuDeviceGetAttribute",
        "cuDevicePrimaryCtxRetain", "cuCtxPushCurrent_v2", "cuLibraryLoadData", "cuLibraryGetKernel",
        "cuKernelSetAttribute"}) {
    for (const CUresult error : some_errors) {
      const int end = test::end_of([&] {
        try {
          gpu_machine_fail(function, error, 1);
          expect_status(create(), status_of(error), without_version(function) + ": " + name_of(error));
          CUcontext current = nullptr;
          CHECK(cuCtxGetCurrent(&current) != CUDA_SUCCESS || current == nullptr);
          CHECK(create() == MLA_OK);
        } catch (const std::exception& failure) {
          std::printf("  %s, %d: %s\n", function, error, failure.what());
          std::fflush(stdout);
          _exit(1);
        }
      });
      EXPECT(end == 0, "%s with %d ends with %d", function, error, end);
    }
  }
}

void a_launch() {
  const Primary primary;
  Run run;
  for (const char* function : {"cuLaunchKernel", "cuCtxPushCurrent_v2", "cuPointerGetAttribute"}) {
    for (const CUresult error : some_errors) {
      gpu_machine_fail(function, error, 1);
      expect_status(run(), status_of(error), without_version(function) + ": " + name_of(error));
    }
  }
  CUcontext current = nullptr;
  CHECK(cuCtxGetCurrent(&current) == CUDA_SUCCESS && current == primary.context());
  run.expect_to_work();
}

void memory_of_others() {
  const Primary other(1);
  const Run elsewhere(1);
  const Primary primary(0);
  Run run;
  const test::DeviceArray* const theirs[] = {&elsewhere.on_device.q, &elsewhere.on_device.k, &elsewhere.on_device.v,
                                             &elsewhere.on_device.out, &elsewhere.on_device.lse};
  test::DeviceArray* const ours[] = {&run.on_device.q, &run.on_device.k, &run.on_device.v,
                                     &run.on_device.out, &run.on_device.lse};
  const test::Array* const hosts[] = {&run.host.q, &run.host.k, &run.host.v, &run.host.out, &run.host.lse};
  const char* const names[] = {"q", "k", "v", "out", "lse"};
  for (int i = 0; i < 5; ++i) {
    mla::tensor& view = ours[i]->view();
    const mla::tensor right = view;
    const std::string name = names[i];
    view.data = theirs[i]->view().data;
    expect_status(run(), invalid, name + ".data = 0x");
    expect_status(run(), invalid, "must be memory of CUDA device 0, is device 1's");
    view.data = hosts[i]->view().data;
    expect_status(run(), invalid, name + ".data = 0x");
    expect_status(run(), invalid, "must be memory of CUDA device 0, is not CUDA's");
    view = right;
    view.device_id = 1;
    expect_status(run(), invalid, name + ".device");
    view.device_id = 0;
    view.device_type = MLA_DEVICE_CPU;
    expect_status(run(), invalid, name + ".device");
    view = right;
  }
  run.expect_to_work();
}

void streams_of_others() {
  const Primary other(1);
  const Stream theirs;
  const Primary primary(0);
  CUstream gone = nullptr;
  Run run;
  DRIVER(cuStreamCreate(&gone, 0));
  DRIVER(cuStreamDestroy_v2(gone));
  expect_status(run(theirs), internal, ": CUDA_ERROR_INVALID_HANDLE");
  expect_status(run(gone), internal, ": CUDA_ERROR_INVALID_HANDLE");
  run.expect_to_work();
}

/// Of a context that is not the primary one: whoever makes one has its tensors there, too.
void streams_of_another_context() {
  const Primary primary;
  Run run;
  CUcontext mine = nullptr;
  DRIVER(cuCtxCreate_v2(&mine, 0, 0));
  {
    const Stream stream;
    expect_status(run(stream), internal, ": CUDA_ERROR_INVALID_HANDLE");
  }
  DRIVER(cuCtxDestroy_v2(mine));
  run.expect_to_work();
}

/// Where the device reaches the host's pages, a host's tensor may be called the device's.
void pages_that_are_reached() {
  Attention problem = Attention::new_tokens(model, MLA_DTYPE_BFLOAT16, {9, 3}, 1);
  const test::Reference expected = test::reference_of(problem);
  mla::backend backend("FLASH_ATTN", test::config_on(model));
  backend.prepare_metadata(problem.q_loc);
  for (test::Array* each : {&problem.q, &problem.k, &problem.v, &problem.out, &problem.lse}) {
    each->view().device_type = MLA_DEVICE_CUDA;
  }
  problem.run_prepared(backend);
  const Primary primary;
  DRIVER(cuCtxSynchronize());
  test::expect_close(problem, expected, "in pages of the host's");
}

void a_stream_for_the_cpu() {
  Attention problem = Attention::new_tokens(model, MLA_DTYPE_BFLOAT16, {9}, 1);
  mla::backend backend("FLASH_ATTN", model.config());
  backend.prepare_metadata(problem.q_loc);
  mla_new_tokens_args args = MLA_NEW_TOKENS_ARGS_INIT;
  args.q = &problem.q.view(), args.k = &problem.k.view(), args.v = &problem.v.view();
  args.out = &problem.out.view();
  args.stream = &problem;
  expect_status(mla_run_prefill_new_tokens(backend.get(), &args), invalid, "stream");
  EXPECT(gpu_machine_calls(nullptr) == 0, "the driver was called");
}

void other_dtypes() {
  const Primary primary;
  Attention problem = Attention::new_tokens(model, MLA_DTYPE_FLOAT32, {9}, 1);
  DeviceAttention on_device(problem);
  mla::backend backend("FLASH_ATTN", test::config_on(model));
  on_device.prepare(backend);
  mla_new_tokens_args args = MLA_NEW_TOKENS_ARGS_INIT;
  args.q = &on_device.q.view(), args.k = &on_device.k.view(), args.v = &on_device.v.view();
  args.out = &on_device.out.view();
  expect_status(mla_run_prefill_new_tokens(backend.get(), &args), MLA_ERROR_UNSUPPORTED_CONFIGURATION,
                "q.dtype = MLA_DTYPE_FLOAT32: must be MLA_DTYPE_BFLOAT16 or MLA_DTYPE_FLOAT16");
}

/// A stream that is captured in a way that the launch breaks: the default one beside it.
void beside_a_capture() {
  const Primary primary;
  const Stream captured(CU_STREAM_DEFAULT);
  CUgraph graph = nullptr;
  Run run;
  DRIVER(cuStreamBeginCapture_v2(captured, CU_STREAM_CAPTURE_MODE_RELAXED));
  expect_status(run(nullptr), internal, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT");
  CHECK(cuStreamEndCapture(captured, &graph) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  run.expect_to_work();
}

void earlier_faults() {
  const Primary primary;
  const Run run;
  // What a first run makes is there.
  mla::check(run());
  DRIVER(cuCtxSynchronize());
  const test::Code code;
  int number = 0;
  DRIVER(test::launch(code.kernel("gpu_test_add"), AddLaunch{&number, 1, 1}));
  mla::check(run());
  CHECK(cuCtxSynchronize() == CUDA_ERROR_ILLEGAL_ADDRESS);
  expect_status(run(), internal, "CUDA_ERROR_ILLEGAL_ADDRESS");
}

void a_context_that_is_gone() {
  const Primary primary;
  const Run run;
  DRIVER(cuDevicePrimaryCtxReset_v2(0));
  expect_status(run(), internal, "CUDA_ERROR_CONTEXT_IS_DESTROYED");
  expect_status(create(), internal, "CUDA_ERROR_CONTEXT_IS_DESTROYED");
}

void a_forked_child() {
  const Primary primary;
  Run run;
  const int end = test::end_of([&] {
    try {
      expect_status(run(), hardware, "a process forked from one that uses CUDA cannot use it");
      expect_status(create(), hardware, "a process forked from one that uses CUDA cannot use it");
      Attention problem = Attention::new_tokens(model, MLA_DTYPE_BFLOAT16, {9}, 1);
      mla::backend on_cpu("FLASH_ATTN", model.config());
      problem.run(on_cpu);
      test::expect_close(problem, test::reference_of(problem), "on the CPU");
    } catch (const std::exception& failure) {
      std::printf("  in the child: %s\n", failure.what());
      std::fflush(stdout);
      _exit(1);
    }
  });
  CHECK(end == 0);
  run.expect_to_work();
}

/// AUTO asks NVML alone, after which children may use the device.
void a_child_after_choosing() {
  mla_selector_config config = Model{}.selector();
  config.platform = MLA_PLATFORM_AUTO;
  CHECK(std::strcmp(mla::select_backend(config), "FLASH_ATTN") == 0);
  CHECK(test::end_of([] {
          const Primary primary;
          Run run;
          run.expect_to_work();
        }) == 0);
}

}  // namespace

int main(int argc, char** argv) {
  using test::isolated;
  const test::Environment two{{"MLA_TEST_GPUS", "90,80"}};
  return test::run(
      argc, argv,
      {{"device: any call of a creation", any_call_of_a_creation},
       isolated("device: a launch that fails", a_launch),
       isolated("device: memory of others", memory_of_others, two),
       isolated("device: streams of others", streams_of_others, two),
       isolated("device: streams of another context", streams_of_another_context),
       isolated("device: pages that are reached", pages_that_are_reached, {{"MLA_TEST_GPU_PAGEABLE", "1"}}),
       isolated("device: a stream for the CPU", a_stream_for_the_cpu),
       isolated("device: other dtypes", other_dtypes),
       isolated("device: beside a capture", beside_a_capture),
       isolated("device: earlier faults", earlier_faults),
       isolated("device: a context that is gone", a_context_that_is_gone),
       isolated("device: a forked child", a_forked_child),
       isolated("device: a child after choosing", a_child_after_choosing)});
}
