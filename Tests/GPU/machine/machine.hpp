// The whole machine: what all functions of the driver work on, one after the other.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unistd.h>

#include <SoftwareGPU.hpp>
#include <algorithm>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

#include "calls.hpp"
#include "capture.hpp"
#include "context.hpp"
#include "failure.hpp"
#include "image.hpp"

namespace gpu {

/// Objects by their handles: those handed out and not taken back.
template <class Object, class Handle>
class Registry {
 public:
  Handle add(Object object) {
    objects_.emplace_back(new Object(std::move(object)));
    return reinterpret_cast<Handle>(objects_.back().get());
  }
  Object& get(Handle handle) { return **find(handle); }
  void remove(Handle handle) { objects_.erase(find(handle)); }
  /// nullptr: none is like that.
  template <class Predicate>
  Handle first(Predicate is_wanted) const {
    for (const auto& each : objects_) {
      if (is_wanted(*each)) return reinterpret_cast<Handle>(each.get());
    }
    return nullptr;
  }

 private:
  auto find(Handle handle) {
    const auto found = std::find_if(objects_.begin(), objects_.end(), [&](const auto& each) {
      return reinterpret_cast<Handle>(each.get()) == handle;
    });
    require(found != objects_.end(), CUDA_ERROR_INVALID_HANDLE);
    return found;
  }

  std::vector<std::unique_ptr<Object>> objects_;
};

struct Kernel {
  CUlibrary library;
  const SoftwareGPU::Kernel* code;
  /// Dynamic shared memory that a launch may ask for, by device.
  std::vector<int> shared_bytes;
};

struct Machine {
  std::mutex mutex;
  const pid_t process = getpid();
  const Settings settings = Settings::of_environment();
  Calls calls{"MLA_TEST_GPU_FAIL"};
  Schedule schedule{mutex, settings};
  Captures captures;
  bool is_initialized = false;
  /// Those that CUDA_VISIBLE_DEVICES leaves.
  std::vector<std::unique_ptr<Device>> devices;
  /// That hosts have made beside the primary ones. None is ever forgotten.
  std::vector<std::unique_ptr<Context>> contexts;
  Registry<Event, CUevent> events;
  Registry<Image, CUlibrary> libraries;
  Registry<Kernel, CUkernel> kernels;
  Registry<Graph, CUgraph> graphs;
  Registry<Graph, CUgraphExec> executable_graphs;

  static Machine& get();

  void initialize();
  Device& device(CUdevice ordinal);
  CUdevice ordinal_of(const Device& device) const;
  /// Whatever has been one.
  Context& context(CUcontext handle);
  /// The calling thread's, able to work.
  Context& current();
  /// Of the current context.
  Stream& stream(CUstream handle);
  /// Where an address of some device is; nullptr: of none.
  const Device* device_of(CUdeviceptr address, const Allocation** allocation) const;

  /// Work on a stream, done some time or captured.
  WorkPointer submit(Stream& stream, std::function<void()> action,
                     const std::vector<WorkPointer>& after = {});
  void wait(Stream& stream);
};

/// What each thread of a process has of its own.
struct ThreadState {
  std::vector<Context*> contexts;
  int capture_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;

  static ThreadState& get();
};

inline CUcontext handle_of(const Context& context) {
  return reinterpret_cast<CUcontext>(const_cast<Context*>(&context));
}

/// A function of the driver: what it does, with all that is true of every one.
template <class Body>
CUresult call(const char* function, Body body, bool needs_initialization = true) {
  Machine& machine = Machine::get();
  // The machine is the parent's, some lock of it held for good perhaps.
  if (getpid() != machine.process) return CUDA_ERROR_NOT_INITIALIZED;
  const std::lock_guard<std::mutex> lock(machine.mutex);
  try {
    machine.calls.note(function);
    require(machine.is_initialized || !needs_initialization, CUDA_ERROR_NOT_INITIALIZED);
    body(machine);
    return CUDA_SUCCESS;
  } catch (const Failure& failure) {
    return failure.code;
  } catch (const std::bad_alloc&) {
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
}

}  // namespace gpu
