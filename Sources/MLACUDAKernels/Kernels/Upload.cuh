/* Numbers that travel in a launch's parameters, to memory of the device. */
#pragma once
#include "Instructions.cuh"

DEVICE void upload(const mla_cuda_upload &a) {
  for (int i = thread_id(); i < a.count; i += MLA_CUDA_UPLOAD_THREADS) store_global(a.to + i, a.numbers[i]);
}
