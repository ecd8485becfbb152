// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace one_call {

void limits();

}  // namespace one_call
