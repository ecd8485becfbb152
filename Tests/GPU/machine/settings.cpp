// SPDX-License-Identifier: Apache-2.0
#include "settings.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace gpu {
namespace {

std::string variable(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : otherwise;
}

/// -1 for what is no number.
int index_of(const std::string& text) {
  char* end = nullptr;
  const long value = std::strtol(text.c_str(), &end, 10);
  return text.empty() || *end != 0 || value < 0 || value > 1000 ? -1 : static_cast<int>(value);
}

}  // namespace

std::vector<std::string> pieces(const std::string& text, char separator) {
  std::vector<std::string> found;
  std::size_t begin = 0;
  while (begin < text.size()) {
    const std::size_t end = std::min(text.find(separator, begin), text.size());
    found.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return found;
}

Settings Settings::of_environment() {
  Settings made{};
  for (const std::string& each : pieces(variable("MLA_TEST_GPUS", "90"), ',')) {
    made.devices.push_back(std::atoi(each.c_str()));
  }
  int major = 0, minor = 0;
  std::sscanf(variable("MLA_TEST_GPU_DRIVER", "12.9").c_str(), "%d.%d", &major, &minor);
  made.driver_version = major * 1000 + minor * 10;
  made.memory_bytes = std::strtoull(variable("MLA_TEST_GPU_MEMORY", "1073741824").c_str(), nullptr, 10);
  made.reaches_pageable_memory = variable("MLA_TEST_GPU_PAGEABLE", "0") == "1";
  const std::string work = variable("MLA_TEST_GPU_WORK", "late");
  made.work = work == "worker"   ? WorkMode::worker
              : work == "random" ? WorkMode::random
                                 : WorkMode::late;
  made.seed = static_cast<unsigned>(std::atoi(variable("MLA_TEST_GPU_SEED", "1").c_str()));
  return made;
}

std::vector<int> Settings::visible() const {
  const char* chosen = std::getenv("CUDA_VISIBLE_DEVICES");
  std::vector<int> found;
  const int count = static_cast<int>(devices.size());
  if (chosen == nullptr) {
    for (int i = 0; i < count; ++i) found.push_back(i);
    return found;
  }
  for (const std::string& each : pieces(chosen, ',')) {
    int index = index_of(each);
    for (int i = 0; i < count && each.rfind("GPU-", 0) == 0; ++i) {
      if (uuid_of(i).rfind(each, 0) == 0) index = i;
    }
    if (index < 0 || index >= count) break;
    found.push_back(index);
  }
  return found;
}

std::string uuid_of(int index) {
  char text[48];
  std::snprintf(text, sizeof(text), "GPU-%08x-0000-0000-0000-000000000000", 0xA0 + index);
  return text;
}

}  // namespace gpu
