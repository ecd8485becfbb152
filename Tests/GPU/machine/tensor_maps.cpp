// The driver's function for what kernels of capability 9.0 fetch tiles by.
//
// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "machine.hpp"

using gpu::Machine;
using gpu::require;

/// Those of the model alone: numbers of two bytes, tiles swizzled by 128 bytes.
CUresult cuTensorMapEncodeTiled(CUtensorMap* map, int data_type, unsigned rank, void* address,
                                const unsigned long long* sizes, const unsigned long long* strides,
                                const unsigned* box, const unsigned* element_strides, int interleave,
                                int swizzle, int promotion, int fill) {
  return gpu::call(__func__, [&](Machine&) {
    SoftwareGPU::TiledTensor tensor{};
    TensorMap made;
    require(map != nullptr && reinterpret_cast<std::uintptr_t>(map) % 64 == 0, CUDA_ERROR_INVALID_VALUE);
    require(rank >= 1 && rank <= static_cast<unsigned>(SoftwareGPU::TiledTensor::most_dimensions) && promotion >= 0 &&
                promotion <= CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            CUDA_ERROR_INVALID_VALUE);
    require((data_type == CU_TENSOR_MAP_DATA_TYPE_FLOAT16 || data_type == CU_TENSOR_MAP_DATA_TYPE_BFLOAT16) &&
                interleave == CU_TENSOR_MAP_INTERLEAVE_NONE && swizzle == CU_TENSOR_MAP_SWIZZLE_128B &&
                fill == CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            CUDA_ERROR_NOT_SUPPORTED);
    tensor.start = address;
    tensor.dimensions = static_cast<int>(rank);
    for (unsigned i = 0; i < rank; ++i) {
      require(element_strides[i] == 1, CUDA_ERROR_NOT_SUPPORTED);
      tensor.sizes[i] = static_cast<long long>(sizes[i]);
      tensor.box[i] = static_cast<int>(box[i]);
      if (i > 0) tensor.strides[i - 1] = static_cast<long long>(strides[i - 1]);
    }
    require(SoftwareGPU::encode_tensor_map(made, tensor), CUDA_ERROR_INVALID_VALUE);
    std::memcpy(map, &made, sizeof(made));
  });
}
