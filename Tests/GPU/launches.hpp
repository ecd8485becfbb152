// Launching the machine's own kernels.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstring>

#include "driver.hpp"
#include "test_kernels.hpp"

namespace test {

/// Code that a device of this capability takes, and a kernel of it.
class Code {
 public:
  explicit Code(int architecture = 90) {
    const std::string image = "software gpu " + std::to_string(architecture);
    DRIVER(cuLibraryLoadData(&library_, image.c_str(), nullptr, nullptr, 0, nullptr, nullptr, 0));
  }
  ~Code() { cuLibraryUnload(library_); }
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;

  CUkernel kernel(const char* name) const {
    CUkernel found = nullptr;
    DRIVER(cuLibraryGetKernel(&found, library_, name));
    return found;
  }

 private:
  CUlibrary library_ = nullptr;
};

struct Shape {
  unsigned x = 1, y = 1, z = 1;
};

template <class Parameters>
CUresult launch(CUkernel kernel, Parameters parameters, CUstream stream = nullptr, Shape grid = {},
                Shape block = {32, 1, 1}, unsigned shared_bytes = 0) {
  void* values[] = {&parameters};
  return cuLaunchKernel(kernel, grid.x, grid.y, grid.z, block.x, block.y, block.z, shared_bytes, stream,
                        values, nullptr);
}

/// Numbers on the device, to which work is added.
class Numbers {
 public:
  Numbers(const Code& code, std::vector<int> values)
      : count_(values.size()), memory_(count_ * 4), add_(code.kernel("gpu_test_add")) {
    Bytes bytes(count_ * 4);
    std::memcpy(bytes.data(), values.data(), bytes.size());
    memory_.upload(bytes);
  }

  CUresult try_add(int added, CUstream stream) const {
    const AddLaunch parameters{memory_.pointer<int>(), static_cast<int>(count_), added};
    return launch(add_, parameters, stream, {static_cast<unsigned>(count_ + 31) / 32});
  }
  void add(int added, CUstream stream = nullptr) const { DRIVER(try_add(added, stream)); }

  /// As they are once all work before on the legacy stream is done, or on a stream.
  std::vector<int> values(CUstream stream = nullptr) const {
    std::vector<int> found(count_);
    DRIVER(cuMemcpyDtoHAsync_v2(found.data(), memory_.address(), count_ * 4, stream));
    return found;
  }
  const DeviceBytes& memory() const { return memory_; }

 private:
  std::size_t count_;
  DeviceBytes memory_;
  CUkernel add_;
};

}  // namespace test
