// What tests on the machine share: a device, memory of it, what a call came to.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "cases.hpp"
#include "driver.h"

namespace test {

/// A call of the driver's that works.
inline void check_driver(CUresult result, const char* call) {
  const char* name = "an error without a name";
  if (result == CUDA_SUCCESS) return;
  cuGetErrorName(result, &name);
  fail("%s: %s", call, name);
}
#define DRIVER(call) test::check_driver(call, #call)

/// The primary context of a device, current while this lives.
class Primary {
 public:
  explicit Primary(CUdevice device = 0) : device_(device) {
    DRIVER(cuInit(0));
    DRIVER(cuDevicePrimaryCtxRetain(&context_, device));
    DRIVER(cuCtxPushCurrent_v2(context_));
  }
  /// Also where a test has destroyed it.
  ~Primary() {
    cuCtxPopCurrent_v2(nullptr);
    cuDevicePrimaryCtxRelease_v2(device_);
  }
  Primary(const Primary&) = delete;
  Primary& operator=(const Primary&) = delete;

  CUcontext context() const { return context_; }

 private:
  CUdevice device_;
  CUcontext context_ = nullptr;
};

using Bytes = std::vector<std::uint8_t>;

/// Of the current device.
class DeviceBytes {
 public:
  explicit DeviceBytes(std::size_t size) : size_(size) {
    if (size > 0) DRIVER(cuMemAlloc_v2(&address_, size));
  }
  ~DeviceBytes() { cuMemFree_v2(address_); }
  DeviceBytes(const DeviceBytes&) = delete;
  DeviceBytes& operator=(const DeviceBytes&) = delete;

  CUdeviceptr address() const { return address_; }
  template <class Type>
  Type* pointer() const {
    return reinterpret_cast<Type*>(address_);
  }

  /// Waits for all that came before it.
  void upload(const Bytes& bytes) { DRIVER(cuMemcpyHtoD_v2(address_, bytes.data(), bytes.size())); }
  Bytes download() const {
    Bytes bytes(size_);
    DRIVER(cuMemcpyDtoH_v2(bytes.data(), address_, size_));
    return bytes;
  }

 private:
  std::size_t size_;
  CUdeviceptr address_ = 0;
};

class Stream {
 public:
  explicit Stream(unsigned flags = CU_STREAM_NON_BLOCKING) { DRIVER(cuStreamCreate(&handle_, flags)); }
  ~Stream() { cuStreamDestroy_v2(handle_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  operator CUstream() const { return handle_; }
  void synchronize() const { DRIVER(cuStreamSynchronize(handle_)); }

 private:
  CUstream handle_ = nullptr;
};

class Event {
 public:
  Event() { DRIVER(cuEventCreate(&handle_, 0)); }
  ~Event() { cuEventDestroy_v2(handle_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  operator CUevent() const { return handle_; }

 private:
  CUevent handle_ = nullptr;
};

/// What a body puts on a stream, captured; `mode` is the capture's.
class CapturedGraph {
 public:
  template <class Body>
  CapturedGraph(CUstream stream, Body body, int mode = CU_STREAM_CAPTURE_MODE_GLOBAL) {
    CUgraph graph = nullptr;
    DRIVER(cuStreamBeginCapture_v2(stream, mode));
    body();
    DRIVER(cuStreamEndCapture(stream, &graph));
    DRIVER(cuGraphInstantiateWithFlags(&handle_, graph, 0));
    DRIVER(cuGraphDestroy(graph));
  }
  ~CapturedGraph() { cuGraphExecDestroy(handle_); }
  CapturedGraph(const CapturedGraph&) = delete;
  CapturedGraph& operator=(const CapturedGraph&) = delete;

  void launch(CUstream stream) const { DRIVER(cuGraphLaunch(handle_, stream)); }

 private:
  CUgraphExec handle_ = nullptr;
};

/// How a child ends that does this: 0, what it exits with, or the signal that ends it; -1 of
/// one that hangs.
template <class Body>
int end_of(Body body) {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    // However busy the machine is.
    alarm(300);
    body();
    std::fflush(stdout);
    _exit(0);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child);
  if (WIFSIGNALED(status)) return WTERMSIG(status) == SIGALRM ? -1 : WTERMSIG(status);
  return WEXITSTATUS(status);
}

using Environment = std::vector<std::pair<const char*, const char*>>;

/// A case in a process of its own, which begins with this in its environment. The program
/// itself must not have called the driver.
inline Case isolated(const std::string& name, const std::function<void()>& body,
                     const Environment& environment = {}) {
  return {name, [=] {
            const int end = end_of([&] {
              for (const auto& [variable, value] : environment) setenv(variable, value, 1);
              try {
                body();
              } catch (const std::exception& failure) {
                std::printf("  %s\n", failure.what());
                std::fflush(stdout);
                _exit(1);
              }
            });
            EXPECT(end == 0, end == -1 ? "hangs" : "ends with %d", end);
          }};
}

/// Runs cases on a machine with these devices, unless the environment has others.
inline int run_on(const char* devices, int argc, char** argv, const std::vector<Case>& cases) {
  setenv("MLA_TEST_GPUS", devices, 0);
  return run(argc, argv, cases);
}

}  // namespace test
