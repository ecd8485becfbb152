// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace test {

/// Keys that are put into an index cache, and selected.
void wrapper_indexing();

}  // namespace test
