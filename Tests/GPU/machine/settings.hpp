// What the environment says about the machine: read when it is asked for, by each of its
// libraries on its own.
//
//   MLA_TEST_GPUS=90,80        its devices' capabilities; "" for none (default: 90)
//   MLA_TEST_GPU_DRIVER=12.2   the CUDA version of the driver (default: 12.9)
//   MLA_TEST_GPU_MEMORY=n      bytes that each device has (default: 1 GiB)
//   MLA_TEST_GPU_PAGEABLE=1    the devices say that they reach the host's pages
//   MLA_TEST_GPU_FAIL=f:code[:nth],...  calls of f that fail: the nth, or all
//   MLA_TEST_GPU_WORK=late     work is done when it is waited for (default), and no other;
//            =random, =worker  ... other work as well; ... by a thread at any moment, too
//   MLA_TEST_GPU_SEED=n        of the order of work that nothing orders
//   MLA_TEST_GPU_NVRTC_FAIL=1  nothing compiles
//   MLA_TEST_GPU_CUDNN=9.25.1  the version of cuDNN (default: 9.25.1)
//   MLA_TEST_GPU_CUDNN_FAIL=f:status[:nth],...  calls of cuDNN's that fail
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace gpu {

enum class WorkMode { late, random, worker };

struct Settings {
  /// Capability * 10 of each device.
  std::vector<int> devices;
  /// Major * 1000 + minor * 10.
  int driver_version;
  std::size_t memory_bytes;
  bool reaches_pageable_memory;
  WorkMode work;
  unsigned seed;

  static Settings of_environment();

  /// Which of `devices` CUDA_VISIBLE_DEVICES leaves to a process, in its order: numbers or
  /// beginnings of UUIDs up to the first that is none.
  std::vector<int> visible() const;
};

std::string uuid_of(int index);
/// Pieces of a text between commas, none of an empty one.
std::vector<std::string> pieces(const std::string& text, char separator);

}  // namespace gpu
