// The machine itself: its memory, and when what is in it is there.
//
// SPDX-License-Identifier: Apache-2.0
#include "driver.hpp"

namespace {

using test::Bytes;
using test::DeviceBytes;

void hosts_cannot_touch() {
  const test::Primary primary;
  DeviceBytes memory(1000);
  volatile char* const address = reinterpret_cast<volatile char*>(memory.address());
  CHECK(test::end_of([&] { static_cast<void>(address[0]); }) == SIGSEGV);
  CHECK(test::end_of([&] { address[999] = 1; }) == SIGSEGV);
  memory.upload(Bytes(1000, 7));
  CHECK(test::end_of([&] { static_cast<void>(address[500]); }) == SIGSEGV);
  CHECK(memory.download() == Bytes(1000, 7));
}

void fresh_memory_is_poison() {
  const test::Primary primary;
  DeviceBytes memory(777);
  CHECK(memory.download() == Bytes(777, 0xFF));
}

void addresses_are_aligned_and_ends_guarded() {
  const test::Primary primary;
  for (const std::size_t size : {1, 255, 256, 257, 4096, 5000, 100000}) {
    const DeviceBytes memory(size);
    CHECK(memory.address() % 256 == 0);
    char byte = 0;
    CHECK(cuMemcpyDtoH_v2(&byte, memory.address() + size - 1, 1) == CUDA_SUCCESS);
    CHECK(cuMemcpyDtoH_v2(&byte, memory.address() + size, 1) == CUDA_ERROR_INVALID_VALUE);
    CHECK(cuMemcpyHtoD_v2(memory.address() - 1, &byte, 1) == CUDA_ERROR_INVALID_VALUE);
  }
}

void memory_ends() {
  const test::Primary primary;
  std::size_t free_bytes = 0, all = 0;
  CHECK(cuMemGetInfo_v2(&free_bytes, &all) == CUDA_SUCCESS && free_bytes == all);
  CUdeviceptr address = 0;
  CHECK(cuMemAlloc_v2(&address, all + 1) == CUDA_ERROR_OUT_OF_MEMORY);
  CHECK(cuMemAlloc_v2(&address, 0) == CUDA_ERROR_INVALID_VALUE);
  CHECK(cuMemAlloc_v2(&address, 4096) == CUDA_SUCCESS);
  CHECK(cuMemAlloc_v2(&address, all - 4095) == CUDA_ERROR_OUT_OF_MEMORY);
  CHECK(cuMemFree_v2(address) == CUDA_SUCCESS);
  CHECK(cuMemFree_v2(address) == CUDA_ERROR_INVALID_VALUE);
  CHECK(cuMemGetInfo_v2(&free_bytes, &all) == CUDA_SUCCESS && free_bytes == all);
}

void addresses_are_known() {
  const test::Primary primary(1);
  const DeviceBytes memory(100);
  int type = 0, ordinal = 0;
  CUdeviceptr start = 0;
  CHECK(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, memory.address() + 50) ==
        CUDA_SUCCESS);
  CHECK(cuPointerGetAttribute(&ordinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, memory.address()) ==
        CUDA_SUCCESS);
  CHECK(type == CU_MEMORYTYPE_DEVICE && ordinal == 1);
  const auto host = reinterpret_cast<CUdeviceptr>(&type);
  for (const CUdeviceptr each : {host, CUdeviceptr{0}, memory.address() + 100}) {
    CHECK(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, each) ==
          CUDA_ERROR_INVALID_VALUE);
  }
  int attributes[] = {CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL,
                      CU_POINTER_ATTRIBUTE_RANGE_START_ADDR};
  void* values[] = {&type, &ordinal, &start};
  CHECK(cuPointerGetAttributes(3, attributes, values, memory.address() + 1) == CUDA_SUCCESS);
  CHECK(type == CU_MEMORYTYPE_DEVICE && ordinal == 1 && start == memory.address());
  CHECK(cuPointerGetAttributes(3, attributes, values, host) == CUDA_SUCCESS);
  CHECK(type == 0 && ordinal == CU_DEVICE_INVALID && start == 0);
}

void memory_in_a_streams_order() {
  const test::Primary primary;
  const test::Stream stream;
  CUdeviceptr address = 0;
  DRIVER(cuMemAllocAsync(&address, 400, stream));
  DRIVER(cuMemsetD32Async(address, 0xFF800000, 99, stream));
  unsigned words[100] = {};
  DRIVER(cuMemcpyDtoHAsync_v2(words, address, sizeof words, stream));
  CHECK(words[0] == 0xFF800000 && words[98] == 0xFF800000 && words[99] == 0xFFFFFFFF);
  CHECK(cuMemsetD32Async(address, 0, 101, stream) == CUDA_ERROR_INVALID_VALUE);
  CHECK(cuMemsetD32Async(address + 2, 0, 1, stream) == CUDA_ERROR_INVALID_VALUE);
  DRIVER(cuMemFreeAsync(address, stream));
  DRIVER(cuStreamSynchronize(stream));
  CHECK(cuMemsetD32Async(address, 0, 1, stream) == CUDA_ERROR_INVALID_VALUE);
  CHECK(cuMemFreeAsync(address, stream) == CUDA_ERROR_INVALID_VALUE);
  DRIVER(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
  CHECK(cuMemAllocAsync(&address, 4, stream) == CUDA_ERROR_NOT_SUPPORTED);
  CUgraph graph = nullptr;
  DRIVER(cuStreamEndCapture(stream, &graph));
  DRIVER(cuGraphDestroy(graph));
}

}  // namespace

int main(int argc, char** argv) {
  return test::run_on("90,80", argc, argv,
                      {{"machine: hosts cannot touch memory", hosts_cannot_touch},
                       {"machine: fresh memory is poison", fresh_memory_is_poison},
                       {"machine: alignment and ends", addresses_are_aligned_and_ends_guarded},
                       {"machine: memory ends", memory_ends},
                       {"machine: addresses are known", addresses_are_known},
                       {"machine: memory in a stream's order", memory_in_a_streams_order}});
}
