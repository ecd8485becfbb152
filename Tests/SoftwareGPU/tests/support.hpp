// What the tests share: checks, lines of results, launches.
#pragma once

#include <SoftwareGPU.hpp>

#include <cstdio>
#include <string>

namespace test {

inline int failures;

/// One line of output for what `body` checks.
template <class Body>
void step(const char* name, Body body) {
  const int before = failures;
  body();
  if (failures == before) std::printf("ok %s\n", name);
}

inline void fail(const char* file, int line, const std::string& what) {
  ++failures;
  std::printf("not ok %s:%d: %s\n", file, line, what.c_str());
}

#define EXPECT(condition, ...)                                     \
  do {                                                             \
    if (!(condition)) {                                            \
      char text[256];                                              \
      std::snprintf(text, sizeof text, __VA_ARGS__);               \
      test::fail(__FILE__, __LINE__, std::string(#condition ": ") + text); \
    }                                                              \
  } while (false)

/// Of one block of the kernel's own threads, or what `grid` says.
template <class Struct>
SoftwareGPU::Result run(const char* name, const Struct& parameters, std::size_t shared_bytes,
                        SoftwareGPU::Options options = {}, SoftwareGPU::Grid grid = {}) {
  const SoftwareGPU::Kernel* kernel = SoftwareGPU::find(name);
  return SoftwareGPU::launch(*kernel, grid, kernel->threads, shared_bytes, &parameters, sizeof parameters, options);
}

}  // namespace test
