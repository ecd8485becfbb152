// libcudnn.so.9: keeps what is described of attention or a product, checks it, and computes it in double
// in the memory of the machine's devices, on the stream that it is given.
//
// SPDX-License-Identifier: Apache-2.0
#include "../../cudnn.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <set>

#include "../calls.hpp"
#include "../failure.hpp"
#include "attention.hpp"
#include "handle.hpp"
#include "product.hpp"

using cudnn::Descriptor;
using cudnn::Handle;
using cudnn::require;

namespace {

std::mutex mutex;
std::set<const void*> objects;
gpu::Calls& calls() {
  static gpu::Calls all("MLA_TEST_GPU_CUDNN_FAIL");
  return all;
}
thread_local std::string last_error;

/// A function of cuDNN's: what it does, with all that is true of every one.
template <class Body>
cudnnStatus_t call(const char* function, Body body) {
  const std::lock_guard<std::mutex> lock(mutex);
  try {
    calls().note(function);
    body();
    return CUDNN_STATUS_SUCCESS;
  } catch (const cudnn::Failure& failure) {
    last_error = failure.text;
    return failure.status;
  } catch (const gpu::Failure& wanted) {
    last_error = std::string(function) + " was told to fail";
    return wanted.code;
  }
}

bool is_known(const void* object) { return objects.count(object) > 0; }

Descriptor& descriptor_at(cudnnBackendDescriptor_t descriptor) {
  require(is_known(descriptor), CUDNN_STATUS_BAD_PARAM, "no descriptor");
  return *static_cast<Descriptor*>(descriptor);
}

/// Of the device that is current.
Handle& handle_at(cudnnHandle_t handle) {
  auto* const found = reinterpret_cast<Handle*>(handle);
  CUdevice current = -1;
  require(is_known(found), CUDNN_STATUS_BAD_PARAM, "no handle");
  require(cuCtxGetDevice(&current) == CUDA_SUCCESS && current == found->device, CUDNN_STATUS_BAD_PARAM,
          "another device is current than the handle's");
  return *found;
}

void store(const std::string& text, std::int64_t wanted, std::int64_t* count, void* elements) {
  const auto size = static_cast<std::int64_t>(text.size());
  if (elements != nullptr) std::memcpy(elements, text.data(), static_cast<std::size_t>(std::min(size, wanted)));
  *count = size;
}

}  // namespace

namespace cudnn {

bool is_alive(const Descriptor* descriptor) { return is_known(descriptor); }
bool is_open(const Handle* handle) { return is_known(handle); }

}  // namespace cudnn

size_t cudnnGetVersion(void) {
  int major = 9, minor = 25, patch = 1;
  const char* wanted = std::getenv("MLA_TEST_GPU_CUDNN");
  if (wanted != nullptr) std::sscanf(wanted, "%d.%d.%d", &major, &minor, &patch);
  return static_cast<size_t>(major * 10000 + minor * 100 + patch);
}

size_t cudnnGetCudartVersion(void) { return 12090; }

void cudnnGetLastErrorString(char* message, size_t size) {
  std::snprintf(message, size, "%s", last_error.c_str());
  last_error.clear();
}

cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) {
  return call(__func__, [&] {
    Handle made{};
    require(cuCtxGetDevice(&made.device) == CUDA_SUCCESS, CUDNN_STATUS_NOT_INITIALIZED, "no context is current");
    int major = 0, minor = 0;
    cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, made.device);
    cuDeviceGetAttribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, made.device);
    made.capability = 10 * major + minor;
    // It takes memory of the device.
    CUdeviceptr memory = 0;
    require(cuMemAlloc_v2(&memory, 256) == CUDA_SUCCESS, CUDNN_STATUS_EXECUTION_FAILED_CUDA_DRIVER, "no memory");
    cuMemFree_v2(memory);
    *handle = reinterpret_cast<cudnnHandle_t>(new Handle(made));
    objects.insert(*handle);
  });
}

cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) {
  return call(__func__, [&] {
    const Handle* const gone = &handle_at(handle);
    objects.erase(gone);
    delete gone;
  });
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, CUstream stream) {
  return call(__func__, [&] { handle_at(handle).stream = stream; });
}

cudnnStatus_t cudnnBackendCreateDescriptor(int type, cudnnBackendDescriptor_t* descriptor) {
  return call(__func__, [&] {
    auto* const made = new Descriptor;
    made->type = type;
    objects.insert(made);
    *descriptor = made;
  });
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor) {
  return call(__func__, [&] {
    const Descriptor* const gone = &descriptor_at(descriptor);
    objects.erase(gone);
    delete gone;
  });
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor, int name, int type, int64_t count,
                                       const void* elements) {
  return call(__func__, [&] { cudnn::set(descriptor_at(descriptor), name, type, count, elements); });
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor) {
  return call(__func__, [&] { cudnn::finalize(descriptor_at(descriptor)); });
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t descriptor, int name, int type, int64_t wanted,
                                       int64_t* count, void* elements) {
  return call(__func__, [&] {
    const Descriptor& found = descriptor_at(descriptor);
    require(found.is_final && found.plan != nullptr, CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "the descriptor is not final");
    if (name == CUDNN_ATTR_ENGINEHEUR_RESULTS && type == CUDNN_TYPE_BACKEND_DESCRIPTOR && wanted > 0) {
      Descriptor& choice = descriptor_at(*static_cast<cudnnBackendDescriptor_t*>(elements));
      choice.plan = found.plan;
      choice.is_final = true;
      *count = 1;
    } else if (name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE && type == CUDNN_TYPE_INT64 && wanted == 1) {
      const auto bytes = static_cast<std::int64_t>(found.plan->workspace_bytes());
      std::memcpy(elements, &bytes, sizeof(bytes));
      *count = 1;
    } else if (name == CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION && type == CUDNN_TYPE_CHAR) {
      store(cudnn::serialised(*found.plan), wanted, count, elements);
    } else {
      require(false, CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE, "nothing is known of that attribute");
    }
  });
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan,
                                  cudnnBackendDescriptor_t variant_pack) {
  return call(__func__, [&] {
    const Handle& used = handle_at(handle);
    const Descriptor &described = descriptor_at(plan), &pack = descriptor_at(variant_pack);
    require(described.plan != nullptr && described.type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR && pack.is_final,
            CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "plan or pack are not final");
    require(described.plan->capability == used.capability, CUDNN_STATUS_NOT_SUPPORTED, "a plan of another device");
    const auto execute = described.plan->is_product ? cudnn::execute_product : cudnn::execute;
    execute(*described.plan, pack, used.stream);
  });
}

long gpu_cudnn_calls(const char* name) {
  const std::lock_guard<std::mutex> lock(mutex);
  return calls().count(name);
}

void gpu_cudnn_fail(const char* name, cudnnStatus_t status, int nth) {
  const std::lock_guard<std::mutex> lock(mutex);
  name == nullptr ? calls().fail_no_more() : calls().fail(name, status, nth);
}

long gpu_cudnn_compilations(void) { return cudnn::compilations; }
long gpu_cudnn_loads(void) { return cudnn::loads; }
long gpu_cudnn_objects(void) {
  const std::lock_guard<std::mutex> lock(mutex);
  return static_cast<long>(objects.size());
}
