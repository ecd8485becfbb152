// What libraries beside the driver put on its streams: work of the host's that touches the
// device's memory.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>

#include "../driver.h"

namespace gpu {

/// Whether the device holds all of this.
using Reach = std::function<bool(const void* address, std::size_t bytes)>;
/// False: it has touched what it must not, and the context is lost.
using LibraryWork = std::function<bool(const Reach& reach)>;

}  // namespace gpu

/// In the current context, in the stream's order; captured where the stream is.
extern "C" CUresult gpu_machine_submit(CUstream stream, const gpu::LibraryWork& work);
/// As a library does that loads code or takes memory of its own: refused in captures that
/// forbid it.
extern "C" CUresult gpu_machine_require_no_capture();
