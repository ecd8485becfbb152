/* Kernels for sm_90a alone, besides those of MLAKernels.cu. */
#include "AttentionTiles.cuh"

#define ATTENTION_TILES(dtype, Element, qk, v)                                              \
  KERNEL(mla_attend_tiles_##dtype##_##qk##_##v, MLA_CUDA_WIDE_THREADS, 1)                   \
  (PARAMETERS(mla_cuda_attention_tiles) arguments) {                                        \
    SHARED_MEMORY_OF_TILES(memory);                                                         \
    AttentionTiles<Element, qk, v>(arguments, memory).run();                                \
  }

ATTENTION_TILES(bf16, BF16, 192, 128)
ATTENTION_TILES(fp16, FP16, 192, 128)
ATTENTION_TILES(bf16, BF16, 128, 128)
ATTENTION_TILES(fp16, FP16, 128, 128)
