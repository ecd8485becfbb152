#include "Tally.hpp"

#include <cstdlib>

#include "ggml-impl.h"

namespace mla_ggml {

namespace {

bool is_wanted() {
  static const bool wanted = [] {
    const char *verbose = std::getenv("MLA_VERBOSE");
    return verbose && *verbose && std::string(verbose) != "0";
  }();
  return wanted;
}

}  // namespace

Tally &Tally::shared() {
  static Tally tally;
  return tally;
}

void Tally::count(const std::string &what) {
  if (!is_wanted()) return;
  const std::lock_guard<std::mutex> hold(mutex_);
  ++counts_[what];
}

void Tally::tell() {
  if (!is_wanted()) return;
  const std::lock_guard<std::mutex> hold(mutex_);
  std::string line = "mla: attention nodes";
  const char *separator = ": ";
  for (const auto &[what, count] : counts_) {
    line += separator + std::to_string(count) + " " + what;
    separator = "; ";
  }
  GGML_LOG_WARN("%s\n", line.c_str());
  counts_.clear();
}

}  // namespace mla_ggml
