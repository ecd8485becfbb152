// Work on the CPU loads nothing of a GPU, nor asks for it. Selecting for whatever the host is
// asks for NVIDIA's management library, the first tensor on a device for the driver.
//
// SPDX-License-Identifier: Apache-2.0
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>

#include <fstream>

#include "support.hpp"

namespace {

/// What the library has asked to have loaded.
std::string& asked_for() {
  static std::string names;
  return names;
}

void work(const test::Model& model) {
  mla_selector_config config = model.selector();
  config.platform = MLA_PLATFORM_CPU;
  const std::string chosen = mla::select_backend(config);
  CHECK(chosen == "CPU" || chosen == "ZEN_CPU");
  const mla::backend_list list(config);
  CHECK(list.size() > 0);
  auto step = test::Attention::new_tokens(model, MLA_DTYPE_BFLOAT16, {5, 3}, 1);
  for (const char* name : test::backends()) {
    if (std::strcmp(name, "ZEN_CPU") == 0) continue;
    mla::backend backend(name, model.config());
    step.run(backend);
  }
}

void nothing_is_mapped() {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    for (const char* part : {"libcuda", "libnv", "nvidia", "libamdhip", "librocm"}) {
      EXPECT(line.find(part) == std::string::npos, "%s", line.c_str());
    }
  }
}

void nothing_of_a_gpu() {
  work({});
  CHECK(asked_for().empty());
  nothing_is_mapped();
}

void what_may_be_a_gpu() {
  const test::Model model;
  mla_selector_config config = model.selector();
  config.platform = MLA_PLATFORM_AUTO;
  const std::string chosen = mla::select_backend(config);
  const mla::backend_list list(config);
  // Once, and not the driver: it could not be used after fork().
  CHECK(asked_for() == "libnvidia-ml.so.1\n");
  CHECK(chosen == "CPU" || chosen == "ZEN_CPU" || chosen == "FLASH_ATTN");
  work(model);
  CHECK(asked_for() == "libnvidia-ml.so.1\n");
}

void what_is_for_a_gpu() {
  asked_for().clear();
  const test::Model model;
  mla_backend_config on_device = model.config();
  on_device.device_type = MLA_DEVICE_CUDA;
  on_device.device_id = 1 << 20;
  mla_backend* backend = nullptr;
  CHECK(mla_backend_create("FLASH_ATTN", &on_device, &backend) != MLA_OK);
  CHECK(asked_for().rfind("libcuda.so.1\n", 0) == 0);
}

}  // namespace

/// In the place of the C library's: the program's own comes first.
extern "C" void* dlopen(const char* name, int flags) noexcept {
  static const auto next = reinterpret_cast<void* (*)(const char*, int)>(dlsym(RTLD_NEXT, "dlopen"));
  asked_for() += std::string(name ? name : "itself") + "\n";
  return next(name, flags);
}

int main(int argc, char** argv) {
  return test::run(argc, argv, {{"loads nothing of a GPU", nothing_of_a_gpu},
                                {"selecting asks what GPU there is", what_may_be_a_gpu},
                                {"a device's backend asks for its driver", what_is_for_a_gpu}});
}
