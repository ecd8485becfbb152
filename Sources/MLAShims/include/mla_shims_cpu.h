// What the CPU offers, and what the operating system lets a process use of it.
#ifndef MLA_SHIMS_CPU_H
#define MLA_SHIMS_CPU_H

#include <stdint.h>

#if defined(__x86_64__)
// arch_prctl(2) on a state component of the XSAVE area: nonzero if the process
// may use it, asking the operating system first or not.
int mla_shim_request_xstate(unsigned component);
int mla_shim_supports_xstate(unsigned component);

typedef struct mla_cpuid_registers {
  uint32_t eax, ebx, ecx, edx;
} mla_cpuid_registers;

mla_cpuid_registers mla_shim_cpuid(uint32_t leaf, uint32_t subleaf);

// Valid only where CPUID.1:ECX.OSXSAVE is set.
uint64_t mla_shim_xgetbv0(void);

#elif defined(__aarch64__)
// What the operating system tells of the CPU: AT_HWCAP and AT_HWCAP2, which say what it has
// and its registers are saved; MIDR_EL1 of the core that the thread is on, 0 if unknown.
typedef struct mla_arm_cpu {
  uint64_t hwcap, hwcap2, midr;
} mla_arm_cpu;

mla_arm_cpu mla_shim_arm_cpu(void);
#endif

#endif  // MLA_SHIMS_CPU_H
