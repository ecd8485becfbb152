#include "fiber.hpp"

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

extern "C" void software_gpu_switch(void** from, void* to);

// What a function must keep by the x86-64 ABI goes on the stack that is left.
asm(R"(
  .text
  .globl software_gpu_switch
  .hidden software_gpu_switch
  .type software_gpu_switch, @function
software_gpu_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
  .size software_gpu_switch, . - software_gpu_switch
)");

namespace SoftwareGPU {

namespace {
constexpr std::size_t guard = 4096, stack_bytes = 256 * 1024;
}

Fiber::~Fiber() {
  if (stack_ != nullptr) munmap(stack_, guard + stack_bytes);
}

void Fiber::start(void (*body)()) {
  if (stack_ == nullptr) {
    void* memory =
        mmap(nullptr, guard + stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, guard, PROT_NONE) != 0) {
      std::perror("SoftwareGPU: a thread's stack");
      std::abort();
    }
    stack_ = static_cast<char*>(memory);
  }
  // As if `body` had been called: the stack is aligned before a return address is on it.
  void** top = reinterpret_cast<void**>(stack_ + guard + stack_bytes) - 2;
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(body);
  for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
  pointer_ = top;
}

void Fiber::switch_from(void*& saved) const { software_gpu_switch(&saved, pointer_); }
void Fiber::switch_to(void* other) { software_gpu_switch(&pointer_, other); }
void Fiber::switch_to(const Fiber& other) { software_gpu_switch(&pointer_, other.pointer_); }

}  // namespace SoftwareGPU
