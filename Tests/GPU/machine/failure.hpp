// How a call of the driver ends early: with one of its errors.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "../driver.h"

namespace gpu {

struct Failure {
  CUresult code;
};

inline void require(bool condition, CUresult code) {
  if (!condition) throw Failure{code};
}

}  // namespace gpu
