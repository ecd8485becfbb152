// Where in a kernel's source an instruction stands.
#pragma once

namespace SoftwareGPU {

struct Site {
  const char* file;
  int line;

  /// As a default argument: where the function is called.
  static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
};

}  // namespace SoftwareGPU
