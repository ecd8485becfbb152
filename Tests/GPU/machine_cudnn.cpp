// The machine's cuDNN: that it takes no description that cuDNN would not.
//
// SPDX-License-Identifier: Apache-2.0
#include "cudnn.h"
#include "driver.hpp"

namespace {

/// A descriptor, and calls for it.
class Descriptor {
 public:
  explicit Descriptor(int type) { CHECK(cudnnBackendCreateDescriptor(type, &handle_) == CUDNN_STATUS_SUCCESS); }
  ~Descriptor() { cudnnBackendDestroyDescriptor(handle_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  operator cudnnBackendDescriptor_t() const { return handle_; }

  cudnnStatus_t set(int name, int type, std::int64_t count, const void* elements) const {
    return cudnnBackendSetAttribute(handle_, name, type, count, elements);
  }
  cudnnStatus_t set_int64(int name, std::int64_t value) const { return set(name, CUDNN_TYPE_INT64, 1, &value); }
  cudnnStatus_t finalize() const { return cudnnBackendFinalize(handle_); }

 private:
  cudnnBackendDescriptor_t handle_ = nullptr;
};

/// All that a tensor needs but its id.
void describe(const Descriptor& tensor) {
  const std::int64_t sizes[] = {2, 1, 1, 1}, strides[] = {1, 1, 1, 1};
  const int type = CUDNN_DATA_INT32;
  CHECK(tensor.set(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type) == CUDNN_STATUS_SUCCESS);
  CHECK(tensor.set(CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, sizes) == CUDNN_STATUS_SUCCESS);
  CHECK(tensor.set(CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides) == CUDNN_STATUS_SUCCESS);
  CHECK(tensor.set_int64(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, 16) == CUDNN_STATUS_SUCCESS);
}

void attributes() {
  const Descriptor tensor(CUDNN_BACKEND_TENSOR_DESCRIPTOR), other(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  const std::int64_t two[] = {1, 2};
  CHECK(tensor.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_BOOLEAN, 1, two) == CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE);
  CHECK(tensor.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 2, two) == CUDNN_STATUS_BAD_PARAM);
  CHECK(tensor.set_int64(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, 1) == CUDNN_STATUS_NOT_SUPPORTED);
  const auto refer = [&] {
    const cudnnBackendDescriptor_t referred = other;
    return tensor.set(CUDNN_ATTR_TENSOR_RAGGED_OFFSET_DESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &referred);
  };
  CHECK(refer() == CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED);
  describe(other);
  CHECK(other.finalize() == CUDNN_STATUS_BAD_PARAM);
  CHECK(other.set_int64(CUDNN_ATTR_TENSOR_UNIQUE_ID, 7) == CUDNN_STATUS_SUCCESS && other.finalize() == CUDNN_STATUS_SUCCESS);
  CHECK(refer() == CUDNN_STATUS_SUCCESS);
  CHECK(other.finalize() == CUDNN_STATUS_BAD_PARAM);
  EXPECT(other.set_int64(CUDNN_ATTR_TENSOR_UNIQUE_ID, 8) == CUDNN_STATUS_BAD_PARAM, "a final descriptor was changed");
  char text[64];
  cudnnGetLastErrorString(text, sizeof(text));
  CHECK(std::string(text) == "the descriptor is final");
  cudnnGetLastErrorString(text, sizeof(text));
  CHECK(text[0] == 0);
}

void variant_packs() {
  int one = 0, other = 0;
  void* const pointers[] = {&one, &other};
  const std::int64_t ids[] = {1, 2}, same[] = {1, 1};
  const auto finalized = [&](const std::int64_t* of, std::int64_t count) {
    const Descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    CHECK(pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, count, of) == CUDNN_STATUS_SUCCESS);
    CHECK(pack.set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 2, pointers) == CUDNN_STATUS_SUCCESS);
    return pack.finalize();
  };
  CHECK(finalized(ids, 2) == CUDNN_STATUS_SUCCESS);
  CHECK(finalized(ids, 1) == CUDNN_STATUS_BAD_PARAM_SIZE_INSUFFICIENT);
  CHECK(finalized(same, 2) == CUDNN_STATUS_BAD_PARAM_DUPLICATED_ENTRIES);
}

void handles() {
  cudnnHandle_t handle = nullptr;
  DRIVER(cuInit(0));
  CHECK(cudnnCreate(&handle) == CUDNN_STATUS_NOT_INITIALIZED);
  {
    const test::Primary second(1);
    CHECK(cudnnCreate(&handle) == CUDNN_STATUS_SUCCESS);
    CHECK(cudnnSetStream(handle, nullptr) == CUDNN_STATUS_SUCCESS);
  }
  {
    const test::Primary first(0);
    CHECK(cudnnSetStream(handle, nullptr) == CUDNN_STATUS_BAD_PARAM);
    const test::Stream stream;
    CUgraph graph = nullptr;
    DRIVER(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    CHECK(cudnnCreate(&handle) == CUDNN_STATUS_EXECUTION_FAILED_CUDA_DRIVER);
    CHECK(cuStreamEndCapture(stream, &graph) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  }
  const test::Primary second(1);
  CHECK(cudnnDestroy(handle) == CUDNN_STATUS_SUCCESS);
  CHECK(cudnnDestroy(handle) == CUDNN_STATUS_BAD_PARAM && gpu_cudnn_objects() == 0);
}

void wanted_failures() {
  gpu_cudnn_fail("cudnnBackendCreateDescriptor", 4000, 2);
  cudnnBackendDescriptor_t made = nullptr;
  CHECK(cudnnBackendCreateDescriptor(CUDNN_BACKEND_TENSOR_DESCRIPTOR, &made) == CUDNN_STATUS_SUCCESS);
  CHECK(cudnnBackendCreateDescriptor(CUDNN_BACKEND_TENSOR_DESCRIPTOR, &made) == 4000);
  CHECK(gpu_cudnn_calls("cudnnBackendCreateDescriptor") == 2 && gpu_cudnn_objects() == 1);
}

}  // namespace

int main(int argc, char** argv) {
  return test::run_on("90,90", argc, argv,
                      {test::isolated("cudnn: attributes are of their type, and final ones stay", attributes),
                       test::isolated("cudnn: ids of a variant pack", variant_packs),
                       test::isolated("cudnn: handles are of their device", handles),
                       test::isolated("cudnn: failures that are wanted", wanted_failures)});
}
