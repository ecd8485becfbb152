// Work on the CPU loads nothing of a GPU, nor asks for it: neither selecting for whatever
// the host is, nor listing, nor runs.
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

void work() {
  const test::Model model;
  mla_selector_config config = model.selector();
  config.platform = MLA_PLATFORM_AUTO;
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
  config.platform = MLA_PLATFORM_CUDA;
  config.capability_major = 9;
  config.capability_minor = 0;
  const mla::backend_list on_cuda(config);
  mla_backend_config on_device = model.config();
  on_device.device_type = MLA_DEVICE_CUDA;
  mla_backend* backend = nullptr;
  CHECK(mla_backend_create("FLASH_ATTN", &on_device, &backend) == MLA_ERROR_UNSUPPORTED_HARDWARE);
}

void nothing_of_a_gpu() {
  work();
  CHECK(asked_for().empty());
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    for (const char* part : {"libcuda", "libnv", "nvidia", "libamdhip", "librocm"}) {
      EXPECT(line.find(part) == std::string::npos, "%s", line.c_str());
    }
  }
}

}  // namespace

/// In the place of the C library's: the program's own comes first.
extern "C" void* dlopen(const char* name, int flags) noexcept {
  static const auto next = reinterpret_cast<void* (*)(const char*, int)>(dlsym(RTLD_NEXT, "dlopen"));
  asked_for() += std::string(name ? name : "itself") + "\n";
  return next(name, flags);
}

int main(int argc, char** argv) {
  return test::run(argc, argv, {{"loads nothing of a GPU", nothing_of_a_gpu}});
}
