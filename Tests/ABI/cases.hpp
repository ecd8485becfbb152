// Cases of the ABI tests and what makes them fail.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdarg>
#include <cstdio>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

namespace test {

[[noreturn, gnu::format(printf, 1, 2)]] inline void fail(const char* format, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  throw std::runtime_error(text);
}

#define CHECK(condition)                                                           \
  do {                                                                             \
    if (!(condition)) test::fail("%s:%d: %s", __FILE__, __LINE__, #condition);     \
  } while (false)

/// As CHECK, with a printf format that says what was seen.
#define EXPECT(condition, ...)                \
  do {                                        \
    if (!(condition)) test::fail(__VA_ARGS__); \
  } while (false)

struct Case {
  std::string name;
  std::function<void()> body;
};

/// Runs the cases whose name contains argv[1], or all; the program's exit code.
inline int run(int argc, char** argv, const std::vector<Case>& cases) {
  int failures = 0;
  for (const Case& each : cases) {
    if (argc > 1 && each.name.find(argv[1]) == std::string::npos) continue;
    try {
      each.body();
      std::printf("ok %s\n", each.name.c_str());
    } catch (const std::exception& failure) {
      std::printf("not ok %s: %s\n", each.name.c_str(), failure.what());
      ++failures;
    }
    std::fflush(stdout);
  }
  return failures == 0 ? 0 : 1;
}

}  // namespace test
