// Tiles of tensors on their way into shared memory.
#pragma once

#include <vector>

#include "../include/SoftwareGPU/hopper.hpp"
#include "random.hpp"

namespace SoftwareGPU {

class TensorCopies {
 public:
  void start_block() { flying_.clear(); }
  void issue(unsigned char* to, const TensorMap& map, const void* mbarrier, const int (&at)[3], Site site);
  bool are_under_way() const { return !flying_.empty(); }
  /// Any of those that are under way.
  void land_one(Random& random);

 private:
  struct Copy {
    unsigned char* to;
    TiledTensor tensor;
    int at[3];
    int mbarrier;
  };

  static void land(const Copy& copy);

  std::vector<Copy> flying_;
};

}  // namespace SoftwareGPU
