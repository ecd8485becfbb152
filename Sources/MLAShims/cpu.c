#include "mla_shims_cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ARCH_GET_XCOMP_SUPP = 0x1021, ARCH_GET_XCOMP_PERM = 0x1022, ARCH_REQ_XCOMP_PERM = 0x1023 };

static int xstate_bit(int what, unsigned component) {
  uint64_t components = 0;
  return syscall(SYS_arch_prctl, what, &components) == 0 && (components >> component & 1);
}

int mla_shim_request_xstate(unsigned component) {
  return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, (unsigned long)component) == 0 &&
         xstate_bit(ARCH_GET_XCOMP_PERM, component);
}

int mla_shim_supports_xstate(unsigned component) {
  return xstate_bit(ARCH_GET_XCOMP_SUPP, component);
}

mla_cpuid_registers mla_shim_cpuid(uint32_t leaf, uint32_t subleaf) {
  mla_cpuid_registers r = {0, 0, 0, 0};
  __cpuid_count(leaf, subleaf, r.eax, r.ebx, r.ecx, r.edx);
  return r;
}

uint64_t mla_shim_xgetbv0(void) {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return ((uint64_t)high << 32) | low;
}

#elif defined(__aarch64__)
#include <sys/auxv.h>

// <asm/hwcap.h>'s: the kernel reads identification registers on behalf of the process.
enum { HAS_CPUID = 1 << 11 };

mla_arm_cpu mla_shim_arm_cpu(void) {
  mla_arm_cpu cpu = {getauxval(AT_HWCAP), getauxval(AT_HWCAP2), 0};
  if (cpu.hwcap & HAS_CPUID) __asm__("mrs %0, midr_el1" : "=r"(cpu.midr));
  return cpu;
}
#endif
