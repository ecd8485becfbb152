/* The program: every kernel by its name (../attention_kernels.c lists those of attention). */
#include "Attention.cuh"
#include "Cache.cuh"
#include "Convert.cuh"
#include "Gather.cuh"
#include "Keys.cuh"
#include "Merge.cuh"
#include "Projection.cuh"
#include "Upload.cuh"

// Registers for more than two blocks of 128 threads on a multiprocessor would not do.
#define ATTENTION(dtype, Element, qk, v)                                                          \
  KERNEL(mla_attend_##dtype##_##qk##_##v, 128, 2)(PARAMETERS(mla_cuda_attention) arguments) {     \
    SHARED_MEMORY(memory);                                                                        \
    Attention<Element, qk, v>(arguments, memory).run();                                           \
  }

#define ATTENTION_OF_EACH_DTYPE(qk, v) ATTENTION(bf16, BF16, qk, v) ATTENTION(fp16, FP16, qk, v)

ATTENTION_OF_EACH_DTYPE(192, 128)
ATTENTION_OF_EACH_DTYPE(192, 256)
ATTENTION_OF_EACH_DTYPE(256, 256)
ATTENTION_OF_EACH_DTYPE(128, 128)
ATTENTION_OF_EACH_DTYPE(128, 64)

#define ROWS(dtype, Element)                                                                              \
  KERNEL(mla_merge_##dtype, MLA_CUDA_MERGE_THREADS, 8)(PARAMETERS(mla_cuda_merge) arguments) {            \
    merge<Element>(arguments);                                                                            \
  }                                                                                                       \
  KERNEL(mla_convert_##dtype, MLA_CUDA_CONVERT_THREADS, 8)(PARAMETERS(mla_cuda_convert) arguments) {      \
    convert<Element>(arguments);                                                                          \
  }                                                                                                       \
  KERNEL(mla_concat_and_cache_##dtype, MLA_CUDA_CACHE_THREADS, 8)                                         \
  (PARAMETERS(mla_cuda_concat_and_cache) arguments) { CacheToken<Element>(arguments).run(); }               \
  KERNEL(mla_gather_cache_##dtype, MLA_CUDA_CACHE_THREADS, 8)                                             \
  (PARAMETERS(mla_cuda_gather_cache) arguments) { GatheredToken<Element>(arguments).run(); }

ROWS(bf16, BF16)
ROWS(fp16, FP16)
ROWS(fp32, FP32)

#define LAYER(dtype, Element)                                                                              \
  KERNEL(mla_gather_layer_tokens_##dtype, MLA_CUDA_CACHE_THREADS, 8)                                       \
  (PARAMETERS(mla_cuda_layer_tokens) arguments) { LayerToken<Element>(arguments).run(); }                  \
  KERNEL(mla_project_##dtype, MLA_CUDA_PROJECTION_THREADS, 2)(PARAMETERS(mla_cuda_projection) arguments) { \
    SHARED_MEMORY(memory);                                                                            \
    Projection<Element>(arguments, memory).run();                                                     \
  }

LAYER(bf16, BF16)
LAYER(fp16, FP16)

KERNEL(mla_concat_keys, MLA_CUDA_KEYS_THREADS, 8)(PARAMETERS(mla_cuda_keys) arguments) { concat_keys(arguments); }

KERNEL(mla_upload, MLA_CUDA_UPLOAD_THREADS, 1)(PARAMETERS(mla_cuda_upload) arguments) { upload(arguments); }
