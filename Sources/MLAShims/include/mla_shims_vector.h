// Vector instructions of the module's own instruction set.
#ifndef MLA_SHIMS_VECTOR_H
#define MLA_SHIMS_VECTOR_H

#include <stdint.h>

#if defined(__AVX512F__)
#include <immintrin.h>

typedef float mla_f32x16 __attribute__((ext_vector_type(16)));

static inline mla_f32x16 mla_shim_fma_f32x16(mla_f32x16 a, mla_f32x16 b, mla_f32x16 c) {
  return __builtin_elementwise_fma(a, b, c);
}
#endif

#endif  // MLA_SHIMS_VECTOR_H
