// The driver's functions of devices and contexts.
//
// SPDX-License-Identifier: Apache-2.0
#include <cstdio>

#include "machine.hpp"

using gpu::Context;
using gpu::Device;
using gpu::Machine;
using gpu::require;
using gpu::ThreadState;

namespace {

struct ErrorText {
  CUresult error;
  const char *name, *text;
};

constexpr ErrorText error_texts[] = {
    {CUDA_SUCCESS, "CUDA_SUCCESS", "no error"},
    {CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {CUDA_ERROR_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {CUDA_ERROR_NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {CUDA_ERROR_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {CUDA_ERROR_INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {CUDA_ERROR_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {CUDA_ERROR_NO_BINARY_FOR_GPU, "CUDA_ERROR_NO_BINARY_FOR_GPU",
     "no kernel image is available for execution on the device"},
    {CUDA_ERROR_INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {CUDA_ERROR_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {CUDA_ERROR_NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {CUDA_ERROR_ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS",
     "an illegal memory access was encountered"},
    {CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES",
     "too many resources requested for launch"},
    {CUDA_ERROR_CONTEXT_IS_DESTROYED, "CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed"},
    {CUDA_ERROR_LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {CUDA_ERROR_NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
     "operation not permitted when stream is capturing"},
    {CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
     "operation failed due to a previous error during capture"},
    {CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT",
     "operation would make the legacy stream depend on a capturing blocking stream"},
    {CUDA_ERROR_UNKNOWN, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

const ErrorText* text_of(CUresult error) {
  for (const ErrorText& each : error_texts) {
    if (each.error == error) return &each;
  }
  return nullptr;
}

int attribute_of(const Device& device, int attribute, bool reaches_pageable_memory) {
  switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK: return 1024;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK: return 48 * 1024;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE: return 32;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: return 132;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: return device.capability / 10;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: return device.capability % 10;
    case CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS: return reaches_pageable_memory ? 1 : 0;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: return device.shared_bytes_at_most();
    default: throw gpu::Failure{CUDA_ERROR_INVALID_VALUE};
  }
}

void end(Machine& machine, Context& context) {
  machine.captures.forget(context);
  context.end(machine.schedule);
}

}  // namespace

CUresult cuInit(unsigned flags) {
  return gpu::call(
      __func__,
      [&](Machine& machine) {
        require(flags == 0, CUDA_ERROR_INVALID_VALUE);
        machine.initialize();
      },
      false);
}

CUresult cuDriverGetVersion(int* version) {
  return gpu::call(
      __func__,
      [&](Machine& machine) {
        require(version != nullptr, CUDA_ERROR_INVALID_VALUE);
        *version = machine.settings.driver_version;
      },
      false);
}

CUresult cuGetErrorName(CUresult error, const char** name) {
  const ErrorText* found = text_of(error);
  *name = found != nullptr ? found->name : nullptr;
  return found != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGetErrorString(CUresult error, const char** text) {
  const ErrorText* found = text_of(error);
  *text = found != nullptr ? found->text : nullptr;
  return found != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuDeviceGetCount(int* count) {
  return gpu::call(__func__, [&](Machine& machine) {
    require(count != nullptr, CUDA_ERROR_INVALID_VALUE);
    *count = static_cast<int>(machine.devices.size());
  });
}

CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  return gpu::call(__func__, [&](Machine& machine) {
    require(device != nullptr, CUDA_ERROR_INVALID_VALUE);
    machine.device(ordinal);
    *device = ordinal;
  });
}

CUresult cuDeviceGetName(char* name, int length, CUdevice device) {
  return gpu::call(__func__, [&](Machine& machine) {
    require(name != nullptr && length > 0, CUDA_ERROR_INVALID_VALUE);
    std::snprintf(name, static_cast<std::size_t>(length), "Software GPU, capability %d.%d",
                  machine.device(device).capability / 10, machine.device(device).capability % 10);
  });
}

CUresult cuDeviceGetAttribute(int* value, int attribute, CUdevice device) {
  return gpu::call(__func__, [&](Machine& machine) {
    require(value != nullptr, CUDA_ERROR_INVALID_VALUE);
    *value = attribute_of(machine.device(device), attribute, machine.settings.reaches_pageable_memory);
  });
}

CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  return gpu::call(__func__, [&](Machine& machine) {
    require(context != nullptr, CUDA_ERROR_INVALID_VALUE);
    Context& primary = *machine.device(device).primary;
    ++primary.holders;
    if (!primary.is_alive()) primary.begin();
    *context = gpu::handle_of(primary);
  });
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
  return gpu::call(__func__, [&](Machine& machine) {
    Context& primary = *machine.device(device).primary;
    require(primary.holders > 0, CUDA_ERROR_INVALID_CONTEXT);
    if (--primary.holders == 0) end(machine, primary);
  });
}

CUresult cuDevicePrimaryCtxReset_v2(CUdevice device) {
  return gpu::call(__func__, [&](Machine& machine) { end(machine, *machine.device(device).primary); });
}

CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned* flags, int* active) {
  return gpu::call(__func__, [&](Machine& machine) {
    *flags = 0;
    *active = machine.device(device).primary->is_alive() ? 1 : 0;
  });
}

CUresult cuCtxCreate_v2(CUcontext* context, unsigned flags, CUdevice device) {
  return gpu::call(__func__, [&](Machine& machine) {
    require(context != nullptr && flags == 0, CUDA_ERROR_INVALID_VALUE);
    machine.contexts.push_back(std::make_unique<Context>(machine.device(device)));
    machine.contexts.back()->begin();
    *context = gpu::handle_of(*machine.contexts.back());
    ThreadState::get().contexts.push_back(machine.contexts.back().get());
  });
}

CUresult cuCtxDestroy_v2(CUcontext context) {
  return gpu::call(__func__, [&](Machine& machine) {
    Context& gone = machine.context(context);
    require(gone.device().primary.get() != &gone && gone.is_alive(), CUDA_ERROR_INVALID_CONTEXT);
    end(machine, gone);
    ThreadState& thread = ThreadState::get();
    if (!thread.contexts.empty() && thread.contexts.back() == &gone) thread.contexts.pop_back();
  });
}

CUresult cuCtxPushCurrent_v2(CUcontext context) {
  return gpu::call(__func__, [&](Machine& machine) {
    Context& pushed = machine.context(context);
    require(pushed.is_alive(), CUDA_ERROR_CONTEXT_IS_DESTROYED);
    ThreadState::get().contexts.push_back(&pushed);
  });
}

CUresult cuCtxPopCurrent_v2(CUcontext* context) {
  return gpu::call(__func__, [&](Machine&) {
    ThreadState& thread = ThreadState::get();
    require(!thread.contexts.empty(), CUDA_ERROR_INVALID_CONTEXT);
    if (context != nullptr) *context = reinterpret_cast<CUcontext>(thread.contexts.back());
    thread.contexts.pop_back();
  });
}

CUresult cuCtxGetCurrent(CUcontext* context) {
  return gpu::call(__func__, [&](Machine&) {
    const ThreadState& thread = ThreadState::get();
    *context = thread.contexts.empty() ? nullptr : reinterpret_cast<CUcontext>(thread.contexts.back());
  });
}

CUresult cuCtxSetCurrent(CUcontext context) {
  return gpu::call(__func__, [&](Machine& machine) {
    ThreadState& thread = ThreadState::get();
    Context* const wanted = context != nullptr ? &machine.context(context) : nullptr;
    require(wanted == nullptr || wanted->is_alive(), CUDA_ERROR_CONTEXT_IS_DESTROYED);
    if (!thread.contexts.empty()) thread.contexts.pop_back();
    if (wanted != nullptr) thread.contexts.push_back(wanted);
  });
}

CUresult cuCtxGetDevice(CUdevice* device) {
  return gpu::call(__func__, [&](Machine& machine) {
    *device = machine.ordinal_of(machine.current().device());
  });
}

CUresult cuCtxSynchronize(void) {
  return gpu::call(__func__, [&](Machine& machine) {
    Context& context = machine.current();
    machine.captures.require_not_capturing(context);
    machine.schedule.wait_for_all_of(&context);
    require(context.error() == CUDA_SUCCESS, context.error());
  });
}

long gpu_machine_calls(const char* name) {
  Machine& machine = Machine::get();
  const std::lock_guard<std::mutex> lock(machine.mutex);
  return machine.calls.count(name);
}

void gpu_machine_fail(const char* name, CUresult error, int nth) {
  Machine& machine = Machine::get();
  const std::lock_guard<std::mutex> lock(machine.mutex);
  if (name != nullptr) {
    machine.calls.fail(name, error, nth);
  } else {
    machine.calls.fail_no_more();
  }
}

void gpu_machine_seed(unsigned seed) {
  Machine& machine = Machine::get();
  const std::lock_guard<std::mutex> lock(machine.mutex);
  machine.schedule.seed(seed);
}
