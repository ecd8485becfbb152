// Machine code as the driver is handed it: an ELF file of the CUDA architecture, or a text
// "software gpu <capability * 10>", which stands for one with all kernels of the model.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace gpu {

class Image {
 public:
  /// Throws what the driver says of what is neither.
  Image(const void* code, int driver_version);

  bool runs_on(int capability) const;
  bool has(const std::string& kernel) const;

 private:
  bool is_elf_;
  /// Capability * 10.
  int architecture_;
  /// As the driver does, a copy.
  std::string bytes_;
};

}  // namespace gpu
