// What tests of refusals share.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstring>

#include "device_attention.hpp"

namespace test {

constexpr mla_status hardware = MLA_ERROR_UNSUPPORTED_HARDWARE, invalid = MLA_ERROR_INVALID_ARGUMENT,
                     internal = MLA_ERROR_INTERNAL;

/// Of a call that failed, and that its message has this in it.
inline void expect_status(mla_status got, mla_status expected, const std::string& text) {
  EXPECT(got == expected, "%s instead of %s: %s", mla_status_name(got), mla_status_name(expected),
         mla_last_error_message());
  EXPECT(std::strstr(mla_last_error_message(), text.c_str()) != nullptr, "\"%s\" lacks \"%s\"",
         mla_last_error_message(), text.c_str());
}

/// Of making, and destroying, an object for a device.
inline mla_status create(CUdevice device = 0) {
  const mla_backend_config config = config_on({2, 64, 64, 128, 512}, device);
  mla_backend* backend = nullptr;
  const mla_status status = mla_backend_create("FLASH_ATTN", &config, &backend);
  EXPECT((backend != nullptr) == (status == MLA_OK), "%s and an object", mla_status_name(status));
  mla_backend_destroy(backend);
  return status;
}

}  // namespace test
