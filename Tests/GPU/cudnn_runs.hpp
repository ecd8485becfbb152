// Runs that cuDNN may serve: whether it did, and that they are right.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mutex>

#include "cudnn.h"
#include "device_attention.hpp"

namespace test {

/// Work that cuDNN has been asked for.
inline long executions() { return gpu_cudnn_calls("cudnnBackendExecute"); }

/// A problem and its backend on a device.
struct CuDNNRun {
  CuDNNRun(const Attention& problem, std::size_t shift = 0)
      : CuDNNRun(problem, config_on(problem.model), shift) {}
  CuDNNRun(const Attention& problem, const mla_backend_config& config, std::size_t shift = 0)
      : host(problem), on_device(host, config.device_id, shift), backend("FLASH_ATTN", config) {
    on_device.prepare(backend);
  }

  /// Right, with nothing written between rows.
  void check(const std::string& what) const {
    expect_close(host, reference_of(host), what);
    EXPECT(host.out.gaps_are_intact() && host.lse.gaps_are_intact(), "%s: wrote between rows", what.c_str());
  }

  /// Whether it was cuDNN that served; it is right in any case.
  bool is_served(const std::string& what) {
    const Stream stream;
    const long before = executions();
    on_device.upload(stream);
    on_device.launch(backend, stream);
    on_device.download(stream);
    check(what);
    return executions() > before;
  }

  Attention host;
  DeviceAttention on_device;
  mla::backend backend;
};

/// What the library logs, from when this is made to its end.
class Logged {
 public:
  Logged() { mla::check(mla_set_log_callback(&Logged::take, this)); }
  ~Logged() { mla_set_log_callback(nullptr, nullptr); }
  Logged(const Logged&) = delete;
  Logged& operator=(const Logged&) = delete;

  /// Lines that have this in them.
  int count(const std::string& text) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    int found = 0;
    for (const std::string& line : lines_) found += line.find(text) != std::string::npos;
    return found;
  }

 private:
  static void take(void* self, std::int32_t, const char* line) {
    auto* const logged = static_cast<Logged*>(self);
    const std::lock_guard<std::mutex> lock(logged->mutex_);
    logged->lines_.push_back(line);
  }

  mutable std::mutex mutex_;
  std::vector<std::string> lines_;
};

}  // namespace test
