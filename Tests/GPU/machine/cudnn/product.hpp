// A matrix product as it was described.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "plan.hpp"

namespace cudnn {

/// Of a graph of one such operation.
Product product_of(const Descriptor& operation);

/// Puts it on a stream.
void execute_product(const Plan& plan, const Descriptor& pack, CUstream stream);

}  // namespace cudnn
