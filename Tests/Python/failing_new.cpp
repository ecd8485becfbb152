// operator new that fails on demand, to be preloaded.
//
// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>
#include <new>

namespace {
long countdown;
long seen;
}  // namespace

extern "C" void fail_from_now(long nth) {
  countdown = nth;
  seen = 0;
}
extern "C" long stop_failing() {
  countdown = 0;
  return seen;
}

void *operator new(std::size_t bytes) {
  ++seen;
  void *memory = countdown > 0 && --countdown == 0 ? nullptr : std::malloc(bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void *operator new[](std::size_t bytes) { return operator new(bytes); }
void operator delete(void *memory) noexcept { std::free(memory); }
void operator delete[](void *memory) noexcept { std::free(memory); }
void operator delete(void *memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void *memory, std::size_t) noexcept { std::free(memory); }
