// A stack of its own for each thread of a block, and the switch from one to another.
#pragma once

#include <cstddef>

namespace SoftwareGPU {

class Fiber {
 public:
  Fiber() = default;
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// What is run at the next switch; it must not return.
  void start(void (*body)());
  /// Until someone switches back. Neither signal masks nor floating-point state change.
  void switch_from(void*& saved) const;
  void switch_to(void* other);
  void switch_to(const Fiber& other);

 private:
  /// Below it a page that nobody may touch: a stack that overflows ends the program there.
  char* stack_ = nullptr;
  void* pointer_ = nullptr;
};

}  // namespace SoftwareGPU
