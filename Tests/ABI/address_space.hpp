// Processes whose address space is limited.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/resource.h>

#include <cstdint>
#include <cstdio>

#include "cases.hpp"

namespace test {

// The sanitizers map more than any limit leaves.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool address_space_has_limits = false;
#elif defined(__has_feature)
constexpr bool address_space_has_limits =
    !__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer);
#else
constexpr bool address_space_has_limits = true;
#endif

/// While it lives, the process gets no more than so many bytes beside what it has.
class LimitedAddressSpace {
 public:
  explicit LimitedAddressSpace(std::uint64_t bytes) {
    if (!address_space_has_limits) return;
    CHECK(getrlimit(RLIMIT_AS, &before_) == 0);
    rlimit now = before_;
    now.rlim_cur = in_use() + bytes;
    CHECK(setrlimit(RLIMIT_AS, &now) == 0);
  }
  ~LimitedAddressSpace() {
    if (address_space_has_limits) setrlimit(RLIMIT_AS, &before_);
  }
  LimitedAddressSpace(const LimitedAddressSpace&) = delete;
  LimitedAddressSpace& operator=(const LimitedAddressSpace&) = delete;

 private:
  static std::uint64_t in_use() {
    unsigned long long pages = 0;
    std::FILE* file = std::fopen("/proc/self/statm", "r");
    CHECK(file && std::fscanf(file, "%llu", &pages) == 1);
    std::fclose(file);
    return pages * 4096;
  }

  rlimit before_{};
};

}  // namespace test
