#include "Tally.hpp"

#include <cstdlib>
#include <cstring>
#include <new>
#include <string>

#include "ggml-impl.h"

namespace mla_ggml {

namespace {

bool is_wanted() {
  static const bool wanted = [] {
    const char *verbose = std::getenv("MLA_VERBOSE");
    return verbose && *verbose && std::strcmp(verbose, "0") != 0;
  }();
  return wanted;
}

}  // namespace

Tally &Tally::shared() {
  static Tally tally;
  return tally;
}

void Tally::count(const char *what, const char *reason) noexcept {
  if (!is_wanted()) return;
  const std::lock_guard<std::mutex> hold(mutex_);
  try {
    ++counts_[{what, reason}];
  } catch (const std::bad_alloc &) {
  }
}

void Tally::tell() noexcept {
  if (!is_wanted()) return;
  const std::lock_guard<std::mutex> hold(mutex_);
  try {
    std::string line = "mla: attention nodes";
    const char *separator = ": ";
    for (const auto &[what, count] : counts_) {
      line.append(separator).append(std::to_string(count)).append(" ").append(what.first).append(what.second);
      separator = "; ";
    }
    if (counts_.empty()) line += ": none";
    GGML_LOG_WARN("%s\n", line.c_str());
  } catch (const std::bad_alloc &) {
  }
  counts_.clear();
}

}  // namespace mla_ggml
