// libnvidia-ml.so.1: how many devices there are, without touching one. Knows all of them,
// whatever CUDA_VISIBLE_DEVICES says.
//
// SPDX-License-Identifier: Apache-2.0
#include "../nvml.h"

#include <atomic>
#include <cstdio>
#include <cstring>

#include "settings.hpp"

namespace {

std::atomic<int> users{0};

/// Handles are indices, from 1 on.
nvmlDevice_t handle_of(std::size_t index) { return reinterpret_cast<nvmlDevice_t>(index + 1); }

std::size_t device_count() { return gpu::Settings::of_environment().devices.size(); }

bool is_device(nvmlDevice_t device) {
  const auto number = reinterpret_cast<std::size_t>(device);
  return number >= 1 && number <= device_count();
}

std::size_t index_of(nvmlDevice_t device) { return reinterpret_cast<std::size_t>(device) - 1; }

}  // namespace

nvmlReturn_t nvmlInit_v2(void) {
  if (device_count() == 0) return NVML_ERROR_DRIVER_NOT_LOADED;
  ++users;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlShutdown(void) {
  if (users == 0) return NVML_ERROR_UNINITIALIZED;
  --users;
  return NVML_SUCCESS;
}

const char* nvmlErrorString(nvmlReturn_t result) {
  return result == NVML_SUCCESS ? "Success" : "Unknown Error";
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned* count) {
  if (users == 0) return NVML_ERROR_UNINITIALIZED;
  *count = static_cast<unsigned>(device_count());
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t* device) {
  if (users == 0) return NVML_ERROR_UNINITIALIZED;
  if (index >= device_count()) return NVML_ERROR_INVALID_ARGUMENT;
  *device = handle_of(index);
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetHandleByUUID(const char* uuid, nvmlDevice_t* device) {
  if (users == 0) return NVML_ERROR_UNINITIALIZED;
  for (std::size_t i = 0; i < device_count(); ++i) {
    if (gpu::uuid_of(static_cast<int>(i)) == uuid) {
      *device = handle_of(i);
      return NVML_SUCCESS;
    }
  }
  return NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char* uuid, unsigned length) {
  if (users == 0) return NVML_ERROR_UNINITIALIZED;
  if (!is_device(device)) return NVML_ERROR_INVALID_ARGUMENT;
  std::snprintf(uuid, length, "%s", gpu::uuid_of(static_cast<int>(index_of(device))).c_str());
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int* major, int* minor) {
  if (users == 0) return NVML_ERROR_UNINITIALIZED;
  if (!is_device(device)) return NVML_ERROR_INVALID_ARGUMENT;
  const int capability = gpu::Settings::of_environment().devices[index_of(device)];
  *major = capability / 10;
  *minor = capability % 10;
  return NVML_SUCCESS;
}

/** Needs no initialization, as NVIDIA's. */
nvmlReturn_t nvmlSystemGetCudaDriverVersion(int* version) {
  *version = gpu::Settings::of_environment().driver_version;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int* version) {
  return nvmlSystemGetCudaDriverVersion(version);
}
