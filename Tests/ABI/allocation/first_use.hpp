// A process's first calls where memory cannot be had: nothing of the library, the Swift
// runtime or the pool of threads has been made.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace allocation {

/// Each allocation fails in turn.
void first_use();
/// Address space runs out, for threads' stacks as well.
void address_space();

}  // namespace allocation
