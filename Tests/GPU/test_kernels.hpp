// Kernels of the machine's own, beside the library's: for tests of itself.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Adds to `count` numbers of 4 bytes; grid: blocks of 32 of them.
struct AddLaunch {
  int* numbers;
  int count;
  int added;
};

/// Threads of a block whose lanes do not meet: a fault of the machine's.
struct DivergeLaunch {
  int unused;
};

/// More than a launch has room for.
struct LargeLaunch {
  char bytes[4100];
};
