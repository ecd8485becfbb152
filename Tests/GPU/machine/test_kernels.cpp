// SPDX-License-Identifier: Apache-2.0
#include "../test_kernels.hpp"

#include <Instructions.cuh>

KERNEL(gpu_test_add, 32, 1)(PARAMETERS(AddLaunch) launch) {
  const int i = block_x() * 32 + thread_id();
  if (i >= launch.count) return;
  store_global<int>(launch.numbers + i, load_global<int>(launch.numbers + i) + launch.added);
}

KERNEL(gpu_test_diverge, 32, 1)(PARAMETERS(DivergeLaunch)) {
  if (thread_id() == 0) return;
  shuffle_xor(1.0F, 1);
}

KERNEL(gpu_test_large, 32, 1)(PARAMETERS(LargeLaunch)) {}
