// Hosts that lack what the library needs of a GPU's, and what it compiles where they do not.
//
// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>
#include <filesystem>
#include <regex>

#include "expectations.hpp"
#include "nvrtc.h"

namespace {

using test::create;
using test::expect_status;
using test::hardware;
using test::invalid;

void expect_the_cpu_chosen() {
  mla_selector_config config = test::Model{2, 128, 64, 128, 512}.selector();
  config.platform = MLA_PLATFORM_AUTO;
  const std::string chosen = mla::select_backend(config);
  EXPECT(chosen == "CPU" || chosen == "ZEN_CPU", "%s", chosen.c_str());
}

void no_device() { expect_status(create(), hardware, "cuInit: CUDA_ERROR_NO_DEVICE"); }

void old_driver() {
  expect_status(create(), hardware, "NVIDIA's driver is of CUDA 11.8: must be of 12.0 or later");
}

void old_device() {
  expect_status(create(), hardware, "config.device_id: a GPU of capability 7.5: ");
  expect_the_cpu_chosen();
}

void no_such_device() {
  expect_status(create(2), invalid, "config.device_id = 2: must be below 2, the number of CUDA devices");
  expect_status(create(INT32_MAX), invalid, "config.device_id = 2147483647: must be below 2");
  CHECK(create(1) == MLA_OK);
}

// GPUs that no build has machine code for.
const std::pair<const char*, const char*> uncompiled{"MLA_TEST_GPUS", "110"};

void no_compiler() {
  expect_status(create(), hardware, "this build has no kernels for sm_110");
  expect_status(create(), hardware, "install CUDA's run-time compiler (pip install nvidia-cuda-nvrtc-cu12)");
  expect_the_cpu_chosen();
}

void a_compiler_that_fails() {
  expect_status(create(), hardware, "NVRTC 12.9 could not compile the kernels for sm_110: ");
  expect_status(create(), hardware, "error: told to fail");
}

/// In the first process it compiles, once; in the second it does not.
void compiles() {
  CHECK(create() == MLA_OK && create() == MLA_OK);
  CHECK(gpu_nvrtc_compilations() == 1);
  // Whose file is for this GPU, this source and this compiler.
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(std::getenv("MLA_CACHE_DIR"))) {
    const std::string name = entry.path().filename().string();
    if (name.rfind("sm_110-", 0) != 0) continue;
    EXPECT(std::regex_match(name, std::regex("sm_110-[0-9a-f]{8}[0-9a-f]*[1-9a-f][0-9a-f]*-12[.]9[.]cubin")), "%s",
           name.c_str());
    ++files;
  }
  CHECK(files == 1);
}

void compiles_no_more() {
  CHECK(create() == MLA_OK);
  CHECK(gpu_nvrtc_compilations() == 0);
}

}  // namespace

int main(int argc, char** argv) {
  using test::isolated;
  return test::run(
      argc, argv,
      {isolated("device: none", no_device, {{"MLA_TEST_GPUS", ""}}),
       isolated("device: a driver too old", old_driver, {{"MLA_TEST_GPU_DRIVER", "11.8"}}),
       isolated("device: too old", old_device, {{"MLA_TEST_GPUS", "75"}}),
       isolated("device: no such", no_such_device, {{"MLA_TEST_GPUS", "90,80"}}),
       isolated("device: no compiler", no_compiler,
                {uncompiled, {"MLA_NVRTC_LIBRARY", "/nowhere/libnvrtc.so"}, {"MLA_CACHE_DIR", "/proc/none"}}),
       isolated("device: a compiler that fails", a_compiler_that_fails,
                {uncompiled, {"MLA_TEST_GPU_NVRTC_FAIL", "1"}, {"MLA_CACHE_DIR", "/proc/none"}}),
       isolated("device: compiles", compiles, {uncompiled}),
       isolated("device: compiles no more", compiles_no_more, {uncompiled})});
}
