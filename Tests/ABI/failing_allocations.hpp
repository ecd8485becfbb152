// Allocations that fail on demand: the program's own malloc() and its kin take the
// place of the C library's, for the libraries that it loads as well.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__SANITIZE_ADDRESS__)
#define FAILING_UNDER_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FAILING_UNDER_ADDRESS_SANITIZER 1
#endif
#endif

namespace failing {

#ifdef FAILING_UNDER_ADDRESS_SANITIZER
constexpr bool under_address_sanitizer = true;
#else
constexpr bool under_address_sanitizer = false;
#endif

/// From here to stop(), on all threads: the `nth` allocation fails, counted from 1,
/// and with `onwards` all after it. 0: none.
void start(long nth, bool onwards);

/// From here to stop(), on all threads: one of `one_in` fails, chosen by `seed`.
void start_at_random(std::uint64_t seed, unsigned one_in);

/// How many there were.
long stop();

/// Of those between start() and stop() that were not asked for with an alignment, the
/// largest in bytes.
std::size_t largest();

/// Blocks in use.
long live_blocks();

}  // namespace failing
