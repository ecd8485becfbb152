#include "mla_shims_arithmetic.h"

#if defined(__x86_64__)
#include <xmmintrin.h>

mla_arithmetic mla_shim_arithmetic(void) { return _mm_getcsr(); }
void mla_shim_set_arithmetic(mla_arithmetic arithmetic) { _mm_setcsr((uint32_t)arithmetic); }
mla_arithmetic mla_shim_plain_arithmetic(void) { return _MM_MASK_MASK; }

#elif defined(__aarch64__)

// FPCR, and FPSR above it.
mla_arithmetic mla_shim_arithmetic(void) {
  uint64_t control, status;
  __asm__ volatile("mrs %0, fpcr\n\tmrs %1, fpsr" : "=r"(control), "=r"(status));
  return status << 32 | (uint32_t)control;
}
void mla_shim_set_arithmetic(mla_arithmetic arithmetic) {
  const uint64_t control = (uint32_t)arithmetic, status = arithmetic >> 32;
  __asm__ volatile("msr fpcr, %0\n\tmsr fpsr, %1" : : "r"(control), "r"(status) : "memory");
}
mla_arithmetic mla_shim_plain_arithmetic(void) { return 0; }

#else

mla_arithmetic mla_shim_arithmetic(void) { return 0; }
void mla_shim_set_arithmetic(mla_arithmetic arithmetic) { (void)arithmetic; }
mla_arithmetic mla_shim_plain_arithmetic(void) { return 0; }

#endif
