// What the library computes in a floating-point state of the caller's.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "../support.hpp"
#include "mode.hpp"

namespace arithmetic {

/// Calls the library, and nothing else, in the mode of the moment.
template <class Call>
auto in_mode(Call call) {
  set_mode(mode_now);
  const auto result = call();
  const Bits after = mode_of_thread();
  set_mode(usual);
  EXPECT(after == mode_now, "%#jx is %#jx after a call", std::uintmax_t{mode_now},
         std::uintmax_t{after});
  return result;
}

inline void good(mla_status status) { mla::check(status); }

using Bytes = std::vector<std::uint8_t>;

/// Of the backends whose objects and runs are compared.
inline const test::Model model{2, 16, 8, 16, 512};

/// New tokens, a chunk in which a request has no keys, and the merge of both.
Bytes backend_results(const char* name, std::int32_t isa, std::int32_t dtype);

/// A cache filled, and a layer of quantized weights on it.
Bytes layer_results(const char* backend, std::int32_t isa, std::int32_t algorithm,
                    std::int32_t cache_format);

/// Everything that computes, on one table.
Bytes results(std::int32_t isa);

}  // namespace arithmetic
