// What the CPU offers and what the operating system lets a process use, and the
// system calls that have no function in libc.
#ifndef MLA_SHIMS_SYSTEM_H
#define MLA_SHIMS_SYSTEM_H

#include <stddef.h>
#include <stdint.h>

// Sleeps while *word is `expected`; may return early.
void mla_shim_futex_wait(uint32_t *word, uint32_t expected);
void mla_shim_futex_wake(uint32_t *word, int32_t count);

#if defined(__x86_64__)
#include <cpuid.h>

typedef struct mla_cpuid_registers {
  uint32_t eax, ebx, ecx, edx;
} mla_cpuid_registers;

static inline mla_cpuid_registers mla_shim_cpuid(uint32_t leaf, uint32_t subleaf) {
  mla_cpuid_registers r = {0, 0, 0, 0};
  __cpuid_count(leaf, subleaf, r.eax, r.ebx, r.ecx, r.edx);
  return r;
}

// Valid only where CPUID.1:ECX.OSXSAVE is set.
static inline uint64_t mla_shim_xgetbv0(void) {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return ((uint64_t)high << 32) | low;
}
#endif

#endif  // MLA_SHIMS_SYSTEM_H
