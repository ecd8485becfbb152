// A thread's asynchronous copies: issued, grouped, waited for in order.
#pragma once

#include <cstddef>
#include <vector>

#include "random.hpp"

namespace SoftwareGPU {

class CopyQueue {
 public:
  struct Copy {
    unsigned char* to;
    const unsigned char* from;
    /// Of 16; the others are zero.
    int bytes;
    bool has_landed;
  };

  void clear();
  void add(Copy copy) { copies_.push_back(copy); }
  /// What was added since the last one is a group.
  void commit() { group_ends_.push_back(copies_.size()); }
  /// Groups from the oldest on arrive until so many are left.
  void wait(int groups_left);
  /// One that is under way, if the random one is.
  void land_one(Random& random);

  static void land(Copy& copy);

 private:
  /// Those before `first_` have arrived; likewise groups.
  std::vector<Copy> copies_;
  std::vector<std::size_t> group_ends_;
  std::size_t first_ = 0, first_group_ = 0;
};

}  // namespace SoftwareGPU
