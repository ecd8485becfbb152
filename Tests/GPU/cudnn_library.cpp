// Which cuDNN serves, and what happens where it does not.
//
// SPDX-License-Identifier: Apache-2.0
#include <dlfcn.h>

#include <filesystem>

#include "cudnn_runs.hpp"

namespace {

using test::Attention;
using test::CuDNNRun;
using test::Model;
using test::Primary;

const Model model{2, 64, 64, 128, 512};

Attention new_tokens() { return Attention::new_tokens(model, MLA_DTYPE_BFLOAT16, {40, 21}, 3); }
Attention context() { return Attention::context(model, MLA_DTYPE_BFLOAT16, {9}, {30}, 4); }

/// Whatever the library is: results are right, and why it does not serve is said once.
void expect_unserved(const std::string& reason) {
  const test::Logged logged;
  const Primary primary;
  CuDNNRun run(new_tokens());
  CHECK(run.backend.workspace_size() == 0);
  const test::DeviceBytes memory(1 << 20);
  run.on_device.scratch = {memory.pointer<void>(), 1 << 20};
  CHECK(!run.is_served("without") && !CuDNNRun(context()).is_served("without"));
  EXPECT(logged.count("cuDNN") == (reason.empty() ? 0 : 1) && logged.count(reason) >= logged.count("cuDNN"), "%s",
         reason.c_str());
}

void turned_off() { expect_unserved(""); }
void found() {
  const Primary primary;
  CHECK(CuDNNRun(new_tokens()).is_served("where it is not named"));
}
void no_library() { expect_unserved("cuDNN does not serve attention, the library's own kernels do: /nowhere/libcudnn"); }
void too_old() { expect_unserved("cuDNN 9.19.0: must be of 9.24.0 or later and before 9.29.0"); }
void too_new() { expect_unserved("cuDNN 9.29.0: must be of 9.24.0 or later"); }
void no_cublaslt() { expect_unserved("cuDNN 9.24.1 needs libcublasLt.so.12: "); }

void with_cublaslt() {
  const auto folder = std::filesystem::read_symlink("/proc/self/exe").parent_path();
  CHECK(dlopen((folder / "cublas/libcublasLt.so.12").c_str(), RTLD_NOW) != nullptr);
  const Primary primary;
  CHECK(CuDNNRun(new_tokens()).is_served("9.24"));
}

/// Whatever call fails, whenever it does: results are right, nothing is kept that was made, and
/// cuDNN is not asked again for what it refused.
void failures() {
  for (const char* function : {"cudnnCreate", "cudnnSetStream", "cudnnBackendCreateDescriptor", "cudnnBackendSetAttribute",
                               "cudnnBackendGetAttribute", "cudnnBackendFinalize", "cudnnBackendExecute"}) {
    for (const int nth : {1, 2, 3, 5, 9, 20, 40, 80, 100}) {
      const int end = test::end_of([&] {
        try {
          const test::Logged logged;
          const Primary primary;
          gpu_cudnn_fail(function, 4000, nth);
          CuDNNRun run(new_tokens());
          run.is_served("a failure");
          gpu_cudnn_fail(nullptr, 0, 0);
          const bool has_failed = logged.count("status 4000, ") > 0;
          CHECK(run.is_served("afterwards") == !has_failed);
          CHECK(logged.count("does not serve an attention") == (has_failed ? 1 : 0));
          if (has_failed) EXPECT(gpu_cudnn_objects() <= 1, "%s: %d objects stay", function, static_cast<int>(gpu_cudnn_objects()));
          CHECK(CuDNNRun(context()).is_served("another attention"));
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

}  // namespace

int main(int argc, char** argv) {
  using test::isolated;
  setenv("MLA_CUDNN_LIBRARY", "libcudnn.so.9", 1);
  const auto of_version = [](const char* version) { return std::make_pair("MLA_TEST_GPU_CUDNN", version); };
  return test::run_on(
      "90", argc, argv,
      {isolated("cudnn: turned off", turned_off, {{"MLA_CUDNN_LIBRARY", "off"}}),
       isolated("cudnn: found by itself", found, {{"MLA_CUDNN_LIBRARY", ""}}),
       isolated("cudnn: no library", no_library, {{"MLA_CUDNN_LIBRARY", "/nowhere/libcudnn.so.9"}}),
       isolated("cudnn: too old", too_old, {of_version("9.19.0")}),
       isolated("cudnn: too old, found by itself", too_old, {{"MLA_CUDNN_LIBRARY", ""}, of_version("9.19.0")}),
       isolated("cudnn: too new", too_new, {of_version("9.29.0")}),
       isolated("cudnn: without cuBLASLt", no_cublaslt, {of_version("9.24.1")}),
       isolated("cudnn: with cuBLASLt", with_cublaslt, {of_version("9.24.1")}),
       isolated("cudnn: any call fails", failures, {{"MLA_CACHE_DIR", "/proc/none"}})});
}
