// What the ABI tests share: cases, poisoned tensors, a float64 reference, the
// backends and kernel tables to try.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdlib>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "attention.hpp"

namespace test {

/// 0, 1, 2 and so on.
template <class Integer>
std::vector<Integer> numbered(std::int64_t count) {
  std::vector<Integer> numbers(static_cast<std::size_t>(count));
  std::iota(numbers.begin(), numbers.end(), Integer{0});
  return numbers;
}

inline const std::vector<const char*>& backends() {
  static const std::vector<const char*> names{"FLASH_ATTN",     "FLASHINFER",    "TRTLLM_RAGGED",
                                              "TOKENSPEED_MLA", "ROCM_AITER_FA", "CPU", "ZEN_CPU"};
  return names;
}

inline mla_cpu_info cpu_info() {
  mla_cpu_info info = MLA_CPU_INFO_INIT;
  mla::check(mla_get_cpu_info(&info));
  return info;
}

/// The kernel tables that this host can run, or the one that MLA_TEST_TABLE names alone.
inline std::vector<std::int32_t> tables() {
  const char* only = std::getenv("MLA_TEST_TABLE");
  std::vector<std::int32_t> list;
  for (std::int32_t isa = MLA_ISA_PORTABLE; isa <= cpu_info().isa; ++isa) {
#if defined(__aarch64__)
    if (isa > MLA_ISA_PORTABLE && isa < MLA_ISA_NEON) continue;
#endif
    if (only == nullptr || std::strcmp(only, mla_isa_name(isa)) == 0) list.push_back(isa);
  }
  CHECK(!list.empty());
  return list;
}

/// Whether a backend, as each_backend() calls it, keeps its vendor's rule that a
/// batch's requests all have queries and keys.
inline bool refuses_empty_requests(const std::string& what) {
  return what.rfind("TRTLLM_RAGGED", 0) == 0;
}

/// Calls `body` with each backend that runs here, on each kernel table.
template <class Body>
void each_backend(const Model& model, Body body) {
  for (const char* name : backends()) {
    for (std::int32_t isa : tables()) {
      const mla_backend_config config = model.config(isa);
      mla_backend* probe = nullptr;
      const mla_status status = mla_backend_create(name, &config, &probe);
      mla_backend_destroy(probe);
      // ZEN_CPU is for AMD hosts with AVX512_BF16.
      if (status == MLA_ERROR_UNSUPPORTED_HARDWARE && std::strcmp(name, "ZEN_CPU") == 0) continue;
      mla::backend backend(name, config);
      body(backend, std::string(name) + "/" + mla_isa_name(isa));
    }
  }
}

}  // namespace test
