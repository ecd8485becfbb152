// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "../../cudnn.h"

namespace cudnn {

/// Of the device that was current.
struct Handle {
  CUdevice device;
  int capability;
  CUstream stream;
};

bool is_open(const Handle* handle);

}  // namespace cudnn
