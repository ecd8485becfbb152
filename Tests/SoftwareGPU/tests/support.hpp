// What the tests share: lines of results, and kernels that are written where they are run.
#pragma once

#include <SoftwareGPU.hpp>

#include <cstdio>
#include <string>
#include <type_traits>

namespace test {

using namespace SoftwareGPU;

inline int failures, failures_of_step;

/// One line of output for what `body` checks.
template <class Body>
void step(const char* name, Body body) {
  failures_of_step = 0;
  body();
  if (failures_of_step == 0) std::printf("ok %s\n", name);
}

inline void fail(const char* file, int line, const std::string& what) {
  ++failures;
  // The first few tell.
  if (++failures_of_step <= 3) std::printf("not ok %s:%d: %s\n", file, line, what.c_str());
}

#define EXPECT(condition, ...)                                                        \
  do {                                                                                \
    if (!(condition)) {                                                               \
      char text_of_failure[512];                                                      \
      std::snprintf(text_of_failure, sizeof text_of_failure, __VA_ARGS__);            \
      test::fail(__FILE__, __LINE__, std::string(#condition ": ") + text_of_failure); \
    }                                                                                 \
  } while (false)

struct Launch {
  Options options{};
  /// One of 32, 64, 128, 384.
  int threads = 32;
  Grid grid{};
  std::size_t shared_bytes = 4096;
};

inline Options with(std::uint64_t seed, Arrival arrival = Arrival::random) { return {seed, arrival}; }

/// What each thread of a test's kernel runs, and on what.
struct Body {
  void (*run)(const void* data);
  const void* data;
};

Result run_body(Body body, const Launch& how);

/// Launches `kernel`, a function without captures, on what all threads are handed.
template <class Data>
Result run(const Data& data, const Launch& how, std::common_type_t<void (*)(const Data&)> kernel) {
  struct Both {
    void (*kernel)(const Data&);
    const Data& data;
  } both{kernel, data};
  const auto call = [](const void* handed) {
    static_cast<const Both*>(handed)->kernel(static_cast<const Both*>(handed)->data);
  };
  return run_body({call, &both}, how);
}

/// That a launch ends with this fault, of which it says `words`.
inline void expect_fault(const char* file, int line, const Result& result, Fault fault, const char* words) {
  if (result.fault == fault && result.text.find(words) != std::string::npos) return;
  fail(file, line, "is to be refused with \"" + std::string(words) + "\", was: " + (result.ok() ? "run" : result.text));
}
#define EXPECT_FAULT(result, fault, words) \
  test::expect_fault(__FILE__, __LINE__, result, SoftwareGPU::Fault::fault, words)
#define EXPECT_RUNS(result)                                       \
  do {                                                            \
    const SoftwareGPU::Result result_of_run = (result);           \
    EXPECT(result_of_run.ok(), "%s", result_of_run.text.c_str()); \
  } while (false)

// Each prints a line for each thing that it tests.
void matrices();
void numbers();
void copies();
void threads();
void races();
void rules();
void mbarriers();
void tensor_copies();
void products();

}  // namespace test
