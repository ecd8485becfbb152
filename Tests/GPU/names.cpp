// vLLM's names on devices: which are served where, what they refuse, how one is chosen.
//
// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "device_attention.hpp"
#include "nvml.h"

namespace {

using test::Attention;
using test::DeviceAttention;
using test::Model;

const Model deepseek{2, 128, 64, 128, 512}, glm{1, 192, 64, 256, 512}, other{2, 100, 28, 64, 512};
/// Devices of the machine: Hopper's capability, and Blackwell's.
constexpr CUdevice hopper = 0, blackwell = 1;

void expect_refused(const char* name, const Model& model, CUdevice device, mla_status status,
                    const char* text) {
  const mla_backend_config config = test::config_on(model, device);
  mla_backend* backend = nullptr;
  const mla_status got = mla_backend_create(name, &config, &backend);
  EXPECT(got == status && backend == nullptr, "%s: %s", name, mla_status_name(got));
  EXPECT(std::strstr(mla_last_error_message(), text) != nullptr, "%s: %s", name, mla_last_error_message());
}

void refusals() {
  const mla_status configuration = MLA_ERROR_UNSUPPORTED_CONFIGURATION;
  for (const char* name : {"FLASHINFER", "TRTLLM_RAGGED", "TOKENSPEED_MLA"}) {
    expect_refused(name, deepseek, hopper, configuration, "compute capability 9.0 not supported");
    expect_refused(name, other, blackwell, configuration, "does not have supported MLA dimensions");
  }
  expect_refused("FLASHINFER", glm, blackwell, configuration, "does not have supported MLA dimensions");
  expect_refused("FLASH_ATTN", other, hopper, configuration, "does not have supported MLA dimensions");
  for (const char* name : {"ROCM_AITER_FA", "CPU", "ZEN_CPU"}) {
    expect_refused(name, deepseek, hopper, MLA_ERROR_UNSUPPORTED_HARDWARE, "does not run on CUDA devices");
  }
  Model wide = deepseek;
  wide.heads = 65536;
  expect_refused("FLASH_ATTN", wide, hopper, configuration, "65536: must be at most 65535");
}

struct Served {
  const char* name;
  CUdevice device;
  Model model;
};

void what_is_served() {
  const std::vector<Served> all{{"FLASH_ATTN", hopper, deepseek},      {"FLASH_ATTN", blackwell, glm},
                                {"FLASHINFER", blackwell, deepseek},   {"TRTLLM_RAGGED", blackwell, glm},
                                {"TRTLLM_RAGGED", blackwell, deepseek}, {"TOKENSPEED_MLA", blackwell, deepseek}};
  for (const Served& each : all) {
    const test::Primary primary(each.device);
    const test::Stream stream;
    mla::backend backend(each.name, test::config_on(each.model, each.device));
    Attention fresh = Attention::new_tokens(each.model, MLA_DTYPE_BFLOAT16, {20, 7}, 1);
    DeviceAttention(fresh, each.device).run(backend, stream);
    test::expect_close(fresh, test::reference_of(fresh), each.name);
    CHECK(((backend.workspace_size() == 0) == (std::getenv("MLA_CUDNN_LIBRARY") == std::string("off"))) && backend.supports_out());
    Attention chunk = Attention::context(each.model, MLA_DTYPE_FLOAT16, {3, 8}, {70, 2}, 2);
    DeviceAttention(chunk, each.device).run(backend, stream);
    test::expect_close(chunk, test::reference_of(chunk), each.name);
  }
}

/// TRTLLM_RAGGED's rules for empty requests, as vLLM has them.
void empty_requests() {
  const test::Primary primary(blackwell);
  const test::Stream stream;
  mla::backend backend("TRTLLM_RAGGED", test::config_on(deepseek, blackwell));
  const std::int32_t mixed[] = {0, 4, 4, 7};
  mla_prefill_metadata metadata = MLA_PREFILL_METADATA_INIT;
  metadata.num_requests = 3;
  metadata.query_start_loc = mixed;
  CHECK(mla_prepare_metadata(backend.get(), &metadata) == MLA_ERROR_INVALID_ARGUMENT);
  CHECK(std::strstr(mla_last_error_message(), "mixed active and empty query rows") != nullptr);
  Attention padded = Attention::new_tokens(deepseek, MLA_DTYPE_BFLOAT16, {70}, 1, 3);
  DeviceAttention on_device(padded, blackwell);
  on_device.upload(stream);
  backend.prepare_metadata(test::Offsets{0, 0, 0});
  on_device.launch(backend, stream);
  on_device.download(stream);
  padded.out.each([&](std::int64_t i, std::int64_t j, std::int64_t k) { CHECK(padded.out.at(i, j, k) == 0); });
  padded.lse.each([&](std::int64_t i, std::int64_t j, std::int64_t) { CHECK(padded.lse.at(i, j) == -INFINITY); });
  CHECK(padded.out.gaps_are_intact() && padded.lse.gaps_are_intact());
}

void chunks_with_empty_rows() {
  const test::Primary primary(blackwell);
  const test::Stream stream;
  mla::backend backend("TRTLLM_RAGGED", test::config_on(deepseek, blackwell));
  Attention chunk = Attention::context(deepseek, MLA_DTYPE_BFLOAT16, {3, 4}, {0, 5}, 1);
  try {
    DeviceAttention(chunk, blackwell).run(backend, stream);
  } catch (const mla::error& failure) {
    EXPECT(std::strstr(failure.what(), "contains an empty query or KV row"), "%s", failure.what());
    return;
  }
  test::fail("a chunk with an empty row was taken");
}

void chosen() {
  mla_selector_config config = deepseek.selector();
  config.platform = MLA_PLATFORM_AUTO;
  CHECK(std::strcmp(mla::select_backend(config), "FLASH_ATTN") == 0);
  config.dtype = MLA_DTYPE_FLOAT32;
  const std::string on_cpu = mla::select_backend(config);
  CHECK(on_cpu == "CPU" || on_cpu == "ZEN_CPU");
  const mla::backend_list list(deepseek.selector());
  CHECK(list.size() > 0);
  EXPECT(gpu_machine_calls(nullptr) == 0, "the driver was called %ld times", gpu_machine_calls(nullptr));
  unsigned count = 0;
  CHECK(nvmlDeviceGetCount_v2(&count) == NVML_ERROR_UNINITIALIZED);
}

}  // namespace

int main(int argc, char** argv) {
  return test::run_on("90,100", argc, argv,
                      {{"device: choosing asks no driver", chosen},
                       {"device: what names refuse", refusals},
                       {"device: what names serve", what_is_served},
                       {"device: empty requests of TRTLLM_RAGGED", empty_requests},
                       {"device: chunks with empty rows of TRTLLM_RAGGED", chunks_with_empty_rows}});
}
