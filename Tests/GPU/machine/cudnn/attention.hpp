// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "plan.hpp"

namespace cudnn {

/// Puts what a plan describes on a stream, with the pointers and shapes of a variant pack.
void execute(const Plan& plan, const Descriptor& pack, CUstream stream);

}  // namespace cudnn
