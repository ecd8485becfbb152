// Hosts without a driver that the library can use: argv[1] says which kind.
//
// SPDX-License-Identifier: Apache-2.0
#include <cstring>
#include <string>

#include "support.hpp"

namespace {

std::string reason;

void devices_are_refused() {
  mla_backend_config config = test::Model{}.config();
  config.device_type = MLA_DEVICE_CUDA;
  mla_backend* backend = nullptr;
  for (int i = 0; i < 2; ++i) {
    CHECK(mla_backend_create("FLASH_ATTN", &config, &backend) == MLA_ERROR_UNSUPPORTED_HARDWARE);
    CHECK(backend == nullptr);
    for (const char* part : {"need NVIDIA's driver of CUDA 12.0 or later: ", reason.c_str()}) {
      EXPECT(std::strstr(mla_last_error_message(), part) != nullptr, "%s", mla_last_error_message());
    }
  }
}

void the_cpu_serves() {
  mla_selector_config config = test::Model{}.selector();
  config.platform = MLA_PLATFORM_AUTO;
  const std::string chosen = mla::select_backend(config);
  EXPECT(chosen == "CPU" || chosen == "ZEN_CPU", "%s", chosen.c_str());
  auto step = test::Attention::new_tokens({}, MLA_DTYPE_BFLOAT16, {5, 3}, 1);
  mla::backend backend(chosen.c_str(), step.model.config());
  step.run(backend);
  test::expect_close(step, test::reference_of(step), chosen);
}

}  // namespace

int main(int, char** argv) {
  const std::string kind = argv[1];
  reason = kind == "old" ? "cuLibraryLoadData" : "libcuda.so.1: file too short";
  return test::run(1, argv, {{"driver " + kind + ": devices are refused", devices_are_refused},
                             {"driver " + kind + ": the CPU serves", the_cpu_serves}});
}
