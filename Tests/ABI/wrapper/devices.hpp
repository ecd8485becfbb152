// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace test {

/// A class that is a backend of a device, and one that is not.
void wrapper_devices();

}  // namespace test
