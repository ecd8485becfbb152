// Which functions of the driver were called, and which calls a test wants to fail.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <vector>

#include "../driver.h"

namespace gpu {

class Calls {
 public:
  /// Begins with what a variable of the environment asks for.
  explicit Calls(const char* variable);

  /// Counts one; throws the error that it shall end with, if any.
  void note(const std::string& function);
  long count(const char* function) const;
  void fail(const std::string& function, CUresult error, int nth);
  void fail_no_more() { wanted_.clear(); }

 private:
  struct Wanted {
    std::string function;
    CUresult error;
    /// Calls until the one that fails, 1 being the next; 0: all.
    int nth;
  };

  std::map<std::string, long> counts_;
  std::vector<Wanted> wanted_;
};

}  // namespace gpu
