// SPDX-License-Identifier: Apache-2.0
#include "calls.hpp"

#include <cstdlib>

#include "failure.hpp"
#include "settings.hpp"

namespace gpu {

Calls::Calls(const char* variable) {
  const char* text = std::getenv(variable);
  for (const std::string& each : pieces(text != nullptr ? text : "", ',')) {
    const std::vector<std::string> parts = pieces(each, ':');
    if (parts.size() < 2) continue;
    fail(parts[0], std::atoi(parts[1].c_str()), parts.size() > 2 ? std::atoi(parts[2].c_str()) : 0);
  }
}

void Calls::note(const std::string& function) {
  ++counts_[function];
  CUresult error = CUDA_SUCCESS;
  for (Wanted& each : wanted_) {
    if (each.function != function) continue;
    if (each.nth == 0 || each.nth == 1) error = each.error;
    // What has failed once is over.
    if (each.nth > 0) each.nth = each.nth == 1 ? -1 : each.nth - 1;
  }
  require(error == CUDA_SUCCESS, error);
}

long Calls::count(const char* function) const {
  long sum = 0;
  for (const auto& [name, count] : counts_) {
    if (function == nullptr || name == function) sum += count;
  }
  return sum;
}

void Calls::fail(const std::string& function, CUresult error, int nth) {
  wanted_.push_back({function, error, nth});
}

}  // namespace gpu
