// What is refused on devices: a status and its text each, and nothing that hangs.
//
// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "device_attention.hpp"
#include "launches.hpp"
#include "nvrtc.h"

namespace {

using test::Attention;
using test::DeviceAttention;
using test::Model;
using test::Primary;
using test::Stream;

const Model model{2, 64, 64, 128, 512};
const mla_status hardware = MLA_ERROR_UNSUPPORTED_HARDWARE, invalid = MLA_ERROR_INVALID_ARGUMENT,
                 internal = MLA_ERROR_INTERNAL;

void expect_status(mla_status got, mla_status expected, const std::string& text) {
  EXPECT(got == expected, "%s instead of %s: %s", mla_status_name(got), mla_status_name(expected),
         mla_last_error_message());
  EXPECT(std::strstr(mla_last_error_message(), text.c_str()) != nullptr, "\"%s\" lacks \"%s\"",
         mla_last_error_message(), text.c_str());
}

mla_status create(CUdevice device = 0) {
  const mla_backend_config config = test::config_on(model, device);
  mla_backend* backend = nullptr;
  const mla_status status = mla_backend_create("FLASH_ATTN", &config, &backend);
  EXPECT((backend != nullptr) == (status == MLA_OK), "%s and an object", mla_status_name(status));
  mla_backend_destroy(backend);
  return status;
}

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

// MARK: what is not there

void no_device() { expect_status(create(), hardware, "cuInit: CUDA_ERROR_NO_DEVICE"); }

void old_driver() {
  expect_status(create(), hardware, "NVIDIA's driver is of CUDA 11.8: must be of 12.0 or later");
}

void old_device() { expect_status(create(), hardware, "config.device_id: a GPU of capability 7.5: "); }

void no_such_device() {
  expect_status(create(2), invalid, "config.device_id = 2: must be below 2, the number of CUDA devices");
  expect_status(create(INT32_MAX), invalid, "config.device_id = 2147483647: must be below 2");
  CHECK(create(1) == MLA_OK);
}

void no_compiler() {
  expect_status(create(), hardware, "install CUDA's run-time compiler (pip install nvidia-cuda-nvrtc-cu12)");
}

void a_compiler_that_fails() {
  expect_status(create(), hardware, "NVRTC 12.9 could not compile the kernels for sm_90: ");
  expect_status(create(), hardware, "error: told to fail");
}

/// In the first process it compiles, once; in the second it does not.
void compiles() {
  CHECK(create() == MLA_OK && create() == MLA_OK);
  CHECK(gpu_nvrtc_compilations() == 1);
}

void compiles_no_more() {
  CHECK(create() == MLA_OK);
  CHECK(gpu_nvrtc_compilations() == 0);
}

// MARK: what the driver refuses

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
  for (const char* function : {"cuLaunchKernel", "cuCtxPushCurrent_v2"}) {
    for (const CUresult error : some_errors) {
      gpu_machine_fail(function, error, 1);
      expect_status(run(), status_of(error), without_version(function) + ": " + name_of(error));
    }
  }
  CUcontext current = nullptr;
  CHECK(cuCtxGetCurrent(&current) == CUDA_SUCCESS && current == primary.context());
  run.expect_to_work();
}

// MARK: bad tensors and streams

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
  expect_status(run(theirs), internal, "cuLaunchKernel: CUDA_ERROR_INVALID_HANDLE");
  expect_status(run(gone), internal, "cuLaunchKernel: CUDA_ERROR_INVALID_HANDLE");
  run.expect_to_work();
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
  const DeviceAttention on_device(problem);
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

// MARK: lost devices

void earlier_faults() {
  const Primary primary;
  const Run run;
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
      {isolated("device: none", no_device, {{"MLA_TEST_GPUS", ""}}),
       isolated("device: a driver too old", old_driver, {{"MLA_TEST_GPU_DRIVER", "11.8"}}),
       isolated("device: too old", old_device, {{"MLA_TEST_GPUS", "75"}}),
       isolated("device: no such", no_such_device, two),
       isolated("device: no compiler", no_compiler, {{"MLA_NVRTC_LIBRARY", "/nowhere/libnvrtc.so"}, {"MLA_CACHE_DIR", "/nowhere"}}),
       isolated("device: a compiler that fails", a_compiler_that_fails,
                {{"MLA_TEST_GPU_NVRTC_FAIL", "1"}, {"MLA_CACHE_DIR", "/nowhere"}}),
       isolated("device: compiles", compiles, {{"MLA_TEST_GPUS", "89"}}),
       isolated("device: compiles no more", compiles_no_more, {{"MLA_TEST_GPUS", "89"}}),
       {"device: any call of a creation", any_call_of_a_creation},
       isolated("device: a launch that fails", a_launch),
       isolated("device: memory of others", memory_of_others, two),
       isolated("device: streams of others", streams_of_others, two),
       isolated("device: a stream for the CPU", a_stream_for_the_cpu),
       isolated("device: other dtypes", other_dtypes),
       isolated("device: beside a capture", beside_a_capture),
       isolated("device: earlier faults", earlier_faults),
       isolated("device: a context that is gone", a_context_that_is_gone),
       isolated("device: a forked child", a_forked_child),
       isolated("device: a child after choosing", a_child_after_choosing)});
}
