// What a call of the wrapper throws.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "../support.hpp"

namespace test {

template <class Body>
void expect_throws(mla_status status, const char* text, Body body) {
  try {
    body();
  } catch (const mla::error& failure) {
    EXPECT(failure.status() == status, "status is %s", mla_status_name(failure.status()));
    EXPECT(std::strstr(failure.what(), text) != nullptr, "no \"%s\" in \"%s\"", text,
           failure.what());
    return;
  }
  fail("nothing was thrown for \"%s\"", text);
}

}  // namespace test
