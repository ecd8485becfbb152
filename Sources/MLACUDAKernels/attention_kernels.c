#include "mla_cuda_kernels.h"

#include <stddef.h>

// MLA_DTYPE_* of mla_prefill.h, which this target does not see.
enum { DTYPE_FP16 = 2, DTYPE_BF16 = 3 };

// Of 2 bytes an element: a tile of queries, one of keys, one of values (Kernels/Attention.cuh).
#define KERNEL(name, dtype, qk, v) {name, dtype, qk, v, 128, MLA_CUDA_TILE_QUERIES * (2 * qk + v) * 2}
#define KERNEL_OF_EACH_DTYPE(qk, v)                            \
  KERNEL("mla_attend_bf16_" #qk "_" #v, DTYPE_BF16, qk, v),    \
      KERNEL("mla_attend_fp16_" #qk "_" #v, DTYPE_FP16, qk, v)

static const mla_cuda_attention_kernel kernels[] = {
    KERNEL_OF_EACH_DTYPE(192, 128), KERNEL_OF_EACH_DTYPE(192, 256), KERNEL_OF_EACH_DTYPE(256, 256),
    KERNEL_OF_EACH_DTYPE(128, 128), KERNEL_OF_EACH_DTYPE(128, 64),
};

const mla_cuda_attention_kernel *mla_cuda_attention_kernels(int *count) {
  *count = sizeof(kernels) / sizeof(kernels[0]);
  return kernels;
}

// Of 2 bytes an element: a tile of queries, two of keys, two of values; nine mbarriers
// (Kernels/AttentionTiles.cuh).
#define TILE_KERNEL(name, dtype, qk, v) \
  {name, dtype, qk, v, MLA_CUDA_WIDE_THREADS, MLA_CUDA_WIDE_TILE * (3 * qk + 2 * v) * 2 + 9 * 8}
#define TILE_KERNEL_OF_EACH_DTYPE(qk, v)                             \
  TILE_KERNEL("mla_attend_tiles_bf16_" #qk "_" #v, DTYPE_BF16, qk, v), \
      TILE_KERNEL("mla_attend_tiles_fp16_" #qk "_" #v, DTYPE_FP16, qk, v)

static const mla_cuda_attention_kernel tile_kernels[] = {
    TILE_KERNEL_OF_EACH_DTYPE(192, 128),
    TILE_KERNEL_OF_EACH_DTYPE(128, 128),
};

const mla_cuda_attention_kernel *mla_cuda_attention_tile_kernels(int *count) {
  *count = sizeof(tile_kernels) / sizeof(tile_kernels[0]);
  return tile_kernels;
}
