// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "problem.hpp"

namespace one_call {

/// Requests of both forms in one batch.
test::OneCall mixed(std::int32_t dtype, std::int32_t causal);

void threads_and_runs();
/// Exactly as much as is asked for; less is refused, and nothing is written.
void workspace();
/// Each request as a batch of its own, of 3 dimensions and of 4.
void alone_or_in_a_batch();
void quantized_output();

}  // namespace one_call
