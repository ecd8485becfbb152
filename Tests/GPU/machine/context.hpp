// Contexts of the devices, and what belongs to them: streams and events.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "memory.hpp"
#include "work.hpp"

namespace gpu {

class Context;
struct Capture;

struct Stream {
  Context* context;
  /// Its work and that of the legacy default stream wait for each other.
  bool is_blocking;
  WorkPointer last;
  /// What its work is captured into, nullptr: it is done.
  std::shared_ptr<Capture> capture;
  std::vector<WorkPointer> captured_last;
};

struct Event {
  Context* context;
  WorkPointer recorded;
  /// Recorded in a stream under capture: what waits for it waits for these.
  std::shared_ptr<Capture> capture;
  std::vector<WorkPointer> captured;
  /// When the work before it was done, in milliseconds of some clock.
  std::shared_ptr<double> time;
};

struct Device {
  /// As NVML counts.
  int physical_index;
  /// Capability * 10.
  int capability;
  Memory memory;
  std::unique_ptr<Context> primary;

  int shared_bytes_at_most() const;
};

class Context {
 public:
  explicit Context(Device& device) : device_(device), legacy_{this, true, nullptr, nullptr, {}} {}

  Device& device() const { return device_; }
  bool is_alive() const { return is_alive_; }
  /// What its work has come to: the first failure, for good.
  CUresult error() const { return error_; }
  void fail(CUresult error) {
    if (error_ == CUDA_SUCCESS) error_ = error;
  }

  void begin();
  /// Its memory, streams and work are gone.
  void end(Schedule& schedule);

  Stream& legacy() { return legacy_; }
  /// The calling thread's.
  Stream& per_thread();
  Stream& create_stream(bool is_blocking);
  void destroy_stream(const Stream& stream);
  bool has(const Stream* stream) const;
  template <class Visit>
  void each_blocking(Visit visit) {
    for (auto& [thread, stream] : per_thread_) visit(*stream);
    for (auto& stream : streams_) {
      if (stream->is_blocking) visit(*stream);
    }
  }

  /// Of the primary context: how many hold it.
  int holders = 0;

 private:
  Device& device_;
  bool is_alive_ = false;
  CUresult error_ = CUDA_SUCCESS;
  Stream legacy_;
  std::map<std::thread::id, std::unique_ptr<Stream>> per_thread_;
  std::vector<std::unique_ptr<Stream>> streams_;
};

}  // namespace gpu
