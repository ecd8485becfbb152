// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace test {

/// Tokens that are put into a cache and taken out again.
void wrapper_gathering();

}  // namespace test
