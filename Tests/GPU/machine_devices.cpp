// The machine itself: devices, contexts, processes, and what it is told to refuse.
//
// SPDX-License-Identifier: Apache-2.0
#include <cstring>
#include <thread>

#include "driver.hpp"
#include "nvml.h"

namespace {

int attribute(int which, CUdevice device = 0) {
  int value = -1;
  DRIVER(cuDeviceGetAttribute(&value, which, device));
  return value;
}

int capability_of(CUdevice device) {
  return 10 * attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device) +
         attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device);
}

int count() {
  int value = -1;
  DRIVER(cuDeviceGetCount(&value));
  return value;
}

void what_there_is() {
  int version = 0;
  CUdevice device = -1;
  CHECK(cuDeviceGetCount(&version) == CUDA_ERROR_NOT_INITIALIZED);
  CHECK(cuDriverGetVersion(&version) == CUDA_SUCCESS && version == 12020);
  CHECK(cuInit(1) == CUDA_ERROR_INVALID_VALUE);
  DRIVER(cuInit(0));
  CHECK(count() == 2 && capability_of(0) == 90 && capability_of(1) == 86);
  CHECK(cuDeviceGet(&device, 1) == CUDA_SUCCESS && device == 1);
  for (const int none : {-1, 2, 1000}) CHECK(cuDeviceGet(&device, none) == CUDA_ERROR_INVALID_DEVICE);
  CHECK(attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN) == 232448);
  CHECK(attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 1) == 101376);
  CHECK(attribute(CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS) == 0);
  CHECK(cuDeviceGetAttribute(&version, 12345, 0) == CUDA_ERROR_INVALID_VALUE);
}

void none() {
  unsigned found = 0;
  CHECK(cuInit(0) == CUDA_ERROR_NO_DEVICE);
  CHECK(nvmlInit_v2() == NVML_ERROR_DRIVER_NOT_LOADED);
  CHECK(nvmlDeviceGetCount_v2(&found) == NVML_ERROR_UNINITIALIZED);
}

void visible_ones() {
  DRIVER(cuInit(0));
  CHECK(count() == 2 && capability_of(0) == 120 && capability_of(1) == 90);
}

void visible_by_uuid() {
  DRIVER(cuInit(0));
  CHECK(count() == 1 && capability_of(0) == 80);
}

void nvml() {
  unsigned found = 0;
  int major = 0, minor = 0, version = 0;
  nvmlDevice_t device = nullptr, same = nullptr;
  char uuid[96];
  CHECK(nvmlInit_v2() == NVML_SUCCESS);
  CHECK(nvmlDeviceGetCount_v2(&found) == NVML_SUCCESS && found == 2);
  CHECK(nvmlDeviceGetHandleByIndex_v2(1, &device) == NVML_SUCCESS);
  CHECK(nvmlDeviceGetCudaComputeCapability(device, &major, &minor) == NVML_SUCCESS);
  CHECK(major == 8 && minor == 6);
  CHECK(nvmlDeviceGetUUID(device, uuid, sizeof(uuid)) == NVML_SUCCESS);
  CHECK(nvmlDeviceGetHandleByUUID(uuid, &same) == NVML_SUCCESS && same == device);
  CHECK(nvmlDeviceGetHandleByUUID("GPU-none", &same) == NVML_ERROR_NOT_FOUND);
  CHECK(nvmlDeviceGetHandleByIndex_v2(2, &device) == NVML_ERROR_INVALID_ARGUMENT);
  CHECK(nvmlSystemGetCudaDriverVersion(&version) == NVML_SUCCESS && version == 12020);
  CHECK(nvmlShutdown() == NVML_SUCCESS && nvmlShutdown() == NVML_ERROR_UNINITIALIZED);
  // Neither has it called the driver.
  CHECK(gpu_machine_calls(nullptr) == 0);
}

void contexts() {
  CUcontext context = nullptr, current = nullptr;
  CUdeviceptr address = 0;
  DRIVER(cuInit(0));
  CHECK(cuCtxGetCurrent(&current) == CUDA_SUCCESS && current == nullptr);
  CHECK(cuMemAlloc_v2(&address, 8) == CUDA_ERROR_INVALID_CONTEXT);
  CHECK(cuCtxPopCurrent_v2(&current) == CUDA_ERROR_INVALID_CONTEXT);
  DRIVER(cuDevicePrimaryCtxRetain(&context, 1));
  CHECK(cuMemAlloc_v2(&address, 8) == CUDA_ERROR_INVALID_CONTEXT);
  DRIVER(cuCtxPushCurrent_v2(context));
  DRIVER(cuMemAlloc_v2(&address, 8));
  // Other threads have none.
  std::thread([&] {
    CUdeviceptr other = 0;
    if (cuMemAlloc_v2(&other, 8) != CUDA_ERROR_INVALID_CONTEXT) _exit(7);
  }).join();
  CHECK(cuCtxPushCurrent_v2(reinterpret_cast<CUcontext>(&address)) == CUDA_ERROR_INVALID_CONTEXT);
  DRIVER(cuCtxPopCurrent_v2(&current));
  CHECK(current == context);
  DRIVER(cuDevicePrimaryCtxRelease_v2(1));
  CHECK(cuDevicePrimaryCtxRelease_v2(1) == CUDA_ERROR_INVALID_CONTEXT);
  CHECK(cuCtxPushCurrent_v2(context) == CUDA_ERROR_CONTEXT_IS_DESTROYED);
}

void a_context_that_goes() {
  const test::Primary primary;
  CUdeviceptr address = 0;
  DRIVER(cuMemAlloc_v2(&address, 8));
  DRIVER(cuDevicePrimaryCtxReset_v2(0));
  CHECK(cuMemAlloc_v2(&address, 8) == CUDA_ERROR_CONTEXT_IS_DESTROYED);
  CHECK(cuCtxSynchronize() == CUDA_ERROR_CONTEXT_IS_DESTROYED);
  CHECK(cuCtxPushCurrent_v2(primary.context()) == CUDA_ERROR_CONTEXT_IS_DESTROYED);
  const test::Primary again;
  char byte = 0;
  CHECK(cuMemcpyDtoH_v2(&byte, address, 1) == CUDA_ERROR_INVALID_VALUE);
  DRIVER(cuMemAlloc_v2(&address, 8));
}

void a_host_s_own_context() {
  const test::Primary primary;
  CUcontext mine = nullptr, current = nullptr;
  CUdeviceptr address = 0;
  DRIVER(cuCtxCreate_v2(&mine, 0, 0));
  CHECK(cuCtxGetCurrent(&current) == CUDA_SUCCESS && current == mine && mine != primary.context());
  DRIVER(cuMemAlloc_v2(&address, 8));
  DRIVER(cuCtxDestroy_v2(mine));
  CHECK(cuCtxGetCurrent(&current) == CUDA_SUCCESS && current == primary.context());
  CHECK(cuCtxPushCurrent_v2(mine) == CUDA_ERROR_CONTEXT_IS_DESTROYED);
  CHECK(cuCtxDestroy_v2(mine) == CUDA_ERROR_INVALID_CONTEXT);
}

void children_have_nothing() {
  const test::Primary primary;
  CHECK(test::end_of([&] {
          CUcontext context = nullptr;
          if (cuInit(0) != CUDA_ERROR_NOT_INITIALIZED) _exit(1);
          if (cuCtxPushCurrent_v2(primary.context()) != CUDA_ERROR_NOT_INITIALIZED) _exit(2);
          if (cuDevicePrimaryCtxRetain(&context, 0) != CUDA_ERROR_NOT_INITIALIZED) _exit(3);
        }) == 0);
  DRIVER(cuCtxSynchronize());
}

void told_to_fail() {
  const test::Primary primary;
  CUdeviceptr address = 0;
  CHECK(cuMemAlloc_v2(&address, 8) == CUDA_SUCCESS);
  CHECK(cuMemAlloc_v2(&address, 8) == CUDA_ERROR_OUT_OF_MEMORY);
  CHECK(cuMemAlloc_v2(&address, 8) == CUDA_SUCCESS);
  CHECK(cuCtxSynchronize() == CUDA_ERROR_LAUNCH_FAILED);
  CHECK(cuCtxSynchronize() == CUDA_ERROR_LAUNCH_FAILED);
  gpu_machine_fail(nullptr, 0, 0);
  CHECK(cuCtxSynchronize() == CUDA_SUCCESS);
  gpu_machine_fail("cuCtxSynchronize", CUDA_ERROR_UNKNOWN, 1);
  CHECK(cuCtxSynchronize() == CUDA_ERROR_UNKNOWN && cuCtxSynchronize() == CUDA_SUCCESS);
  CHECK(gpu_machine_calls("cuMemAlloc_v2") == 3 && gpu_machine_calls("cuCtxSynchronize") == 5);
}

void errors_have_names() {
  const char* text = nullptr;
  CHECK(cuGetErrorName(CUDA_ERROR_ILLEGAL_ADDRESS, &text) == CUDA_SUCCESS);
  CHECK(std::strcmp(text, "CUDA_ERROR_ILLEGAL_ADDRESS") == 0);
  CHECK(cuGetErrorString(CUDA_ERROR_LAUNCH_FAILED, &text) == CUDA_SUCCESS && text != nullptr);
  CHECK(cuGetErrorName(12345, &text) == CUDA_ERROR_INVALID_VALUE && text == nullptr);
}

}  // namespace

int main(int argc, char** argv) {
  using test::isolated;
  return test::run(
      argc, argv,
      {isolated("machine: what there is", what_there_is,
                {{"MLA_TEST_GPUS", "90,86"}, {"MLA_TEST_GPU_DRIVER", "12.2"}}),
       isolated("machine: no device", none, {{"MLA_TEST_GPUS", ""}}),
       isolated("machine: visible devices", visible_ones,
                {{"MLA_TEST_GPUS", "90,80,120"}, {"CUDA_VISIBLE_DEVICES", "2,0,7,1"}}),
       isolated("machine: visible by uuid", visible_by_uuid,
                {{"MLA_TEST_GPUS", "90,80"}, {"CUDA_VISIBLE_DEVICES", "GPU-000000a1"}}),
       isolated("machine: nvml", nvml, {{"MLA_TEST_GPUS", "90,86"}, {"MLA_TEST_GPU_DRIVER", "12.2"}}),
       isolated("machine: contexts", contexts, {{"MLA_TEST_GPUS", "90,86"}}),
       isolated("machine: a context that goes", a_context_that_goes),
       isolated("machine: a host's own context", a_host_s_own_context),
       isolated("machine: children have nothing", children_have_nothing),
       isolated("machine: told to fail", told_to_fail,
                {{"MLA_TEST_GPU_FAIL", "cuMemAlloc_v2:2:2,cuCtxSynchronize:719"}}),
       isolated("machine: errors have names", errors_have_names)});
}
