// The driver's functions of memory: to have it, to copy, to ask whose it is.
//
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>

#include "machine.hpp"

using gpu::Allocation;
using gpu::Context;
using gpu::Machine;
using gpu::Memory;
using gpu::require;
using gpu::Stream;

namespace {

/// Memory of the current device, whole.
void* reach(const Context& context, CUdeviceptr address, std::size_t bytes) {
  require(context.device().memory.holds(address, bytes), CUDA_ERROR_INVALID_VALUE);
  return reinterpret_cast<void*>(address);
}

void submit_copy(Machine& machine, Stream& stream, void* to, const void* from, std::size_t bytes) {
  const Memory& memory = stream.context->device().memory;
  machine.submit(stream, [&memory, to, from, bytes] {
    const Memory::Opened opened(memory);
    std::memmove(to, from, bytes);
  });
}

void submit_upload(Machine& machine, Stream& stream, CUdeviceptr to, const void* from,
                   std::size_t bytes) {
  void* const target = reach(*stream.context, to, bytes);
  // A graph reads the host's memory whenever it runs; a copy from pages of the host's has
  // read them when the call returns.
  if (stream.capture != nullptr) return submit_copy(machine, stream, target, from, bytes);
  const Memory& memory = stream.context->device().memory;
  const auto* begin = static_cast<const std::uint8_t*>(from);
  machine.submit(stream, [&memory, target, staged = std::vector<std::uint8_t>(begin, begin + bytes)] {
    const Memory::Opened opened(memory);
    std::memcpy(target, staged.data(), staged.size());
  });
}

void submit_fill(Machine& machine, Stream& stream, CUdeviceptr to, unsigned char value,
                 std::size_t bytes) {
  void* const target = reach(*stream.context, to, bytes);
  const Memory& memory = stream.context->device().memory;
  machine.submit(stream, [&memory, target, value, bytes] {
    const Memory::Opened opened(memory);
    std::memset(target, value, bytes);
  });
}

/// Stores one attribute of an address; nothing is known of the host's.
void store_attribute(Machine& machine, int attribute, CUdeviceptr address, void* value) {
  const Allocation* allocation = nullptr;
  const gpu::Device* device = machine.device_of(address, &allocation);
  const bool is_known = device != nullptr;
  switch (attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
      *static_cast<CUcontext*>(value) = is_known ? gpu::handle_of(*allocation->owner) : nullptr;
      return;
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
      *static_cast<unsigned*>(value) = is_known ? CU_MEMORYTYPE_DEVICE : 0;
      return;
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
      *static_cast<CUdeviceptr*>(value) = is_known ? address : 0;
      return;
    case CU_POINTER_ATTRIBUTE_HOST_POINTER: *static_cast<void**>(value) = nullptr; return;
    case CU_POINTER_ATTRIBUTE_IS_MANAGED: *static_cast<unsigned*>(value) = 0; return;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
      *static_cast<int*>(value) = is_known ? machine.ordinal_of(*device) : CU_DEVICE_INVALID;
      return;
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
      *static_cast<CUdeviceptr*>(value) = is_known ? allocation->address : 0;
      return;
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
      *static_cast<std::size_t*>(value) = is_known ? allocation->bytes : 0;
      return;
    default: throw gpu::Failure{CUDA_ERROR_INVALID_VALUE};
  }
}

}  // namespace

CUresult cuMemAlloc_v2(CUdeviceptr* address, size_t bytes) {
  return gpu::call(__func__, [&](Machine& machine) {
    require(address != nullptr, CUDA_ERROR_INVALID_VALUE);
    const Context& context = machine.current();
    machine.captures.require_none(gpu::ThreadState::get().capture_mode);
    *address = context.device().memory.allocate(bytes, &context);
  });
}

CUresult cuMemFree_v2(CUdeviceptr address) {
  return gpu::call(__func__, [&](Machine& machine) {
    Context& context = machine.current();
    machine.captures.require_none(gpu::ThreadState::get().capture_mode);
    if (address == 0) return;
    require(context.device().memory.find(address) != nullptr, CUDA_ERROR_INVALID_VALUE);
    machine.schedule.wait_for_all_of(&context);
    context.device().memory.free(address);
  });
}

CUresult cuMemGetInfo_v2(size_t* free_bytes, size_t* total_bytes) {
  return gpu::call(__func__, [&](Machine& machine) {
    const Memory& memory = machine.current().device().memory;
    *free_bytes = memory.capacity() - memory.taken();
    *total_bytes = memory.capacity();
  });
}

CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void* from, size_t bytes) {
  return gpu::call(__func__, [&](Machine& machine) {
    Stream& stream = machine.current().legacy();
    submit_upload(machine, stream, to, from, bytes);
    machine.wait(stream);
  });
}

CUresult cuMemcpyDtoH_v2(void* to, CUdeviceptr from, size_t bytes) {
  return gpu::call(__func__, [&](Machine& machine) {
    Stream& stream = machine.current().legacy();
    submit_copy(machine, stream, to, reach(*stream.context, from, bytes), bytes);
    machine.wait(stream);
  });
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t bytes, CUstream stream) {
  return gpu::call(__func__, [&](Machine& machine) {
    submit_upload(machine, machine.stream(stream), to, from, bytes);
  });
}

/** To pages of the host's: done when it returns, unless it is captured. */
CUresult cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return gpu::call(__func__, [&](Machine& machine) {
    Stream& found = machine.stream(stream);
    submit_copy(machine, found, to, reach(*found.context, from, bytes), bytes);
    if (found.capture == nullptr) machine.wait(found);
  });
}

CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return gpu::call(__func__, [&](Machine& machine) {
    Stream& found = machine.stream(stream);
    submit_copy(machine, found, reach(*found.context, to, bytes), reach(*found.context, from, bytes),
                bytes);
  });
}

CUresult cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t bytes) {
  return gpu::call(__func__, [&](Machine& machine) {
    submit_fill(machine, machine.current().legacy(), to, value, bytes);
  });
}

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t bytes, CUstream stream) {
  return gpu::call(__func__, [&](Machine& machine) {
    submit_fill(machine, machine.stream(stream), to, value, bytes);
  });
}

CUresult cuMemsetD32Async(CUdeviceptr to, unsigned value, size_t count, CUstream stream) {
  return gpu::call(__func__, [&](Machine& machine) {
    require(to % sizeof value == 0, CUDA_ERROR_INVALID_VALUE);
    Stream& found = machine.stream(stream);
    auto* const words = static_cast<unsigned*>(reach(*found.context, to, count * sizeof value));
    const Memory& memory = found.context->device().memory;
    machine.submit(found, [&memory, words, value, count] {
      const Memory::Opened opened(memory);
      std::fill_n(words, count, value);
    });
  });
}

/** Graphs have no memory of their own here. */
CUresult cuMemAllocAsync(CUdeviceptr* address, size_t bytes, CUstream stream) {
  return gpu::call(__func__, [&](Machine& machine) {
    require(address != nullptr, CUDA_ERROR_INVALID_VALUE);
    const Stream& found = machine.stream(stream);
    require(found.capture == nullptr, CUDA_ERROR_NOT_SUPPORTED);
    *address = found.context->device().memory.allocate(bytes, found.context);
  });
}

/** What comes behind it on the stream finds nothing there. */
CUresult cuMemFreeAsync(CUdeviceptr address, CUstream stream) {
  return gpu::call(__func__, [&](Machine& machine) {
    Stream& found = machine.stream(stream);
    require(found.capture == nullptr, CUDA_ERROR_NOT_SUPPORTED);
    Memory& memory = found.context->device().memory;
    require(memory.holds(address, 1), CUDA_ERROR_INVALID_VALUE);
    machine.submit(found, [&memory, address] { memory.free(address); });
  });
}

CUresult cuPointerGetAttribute(void* value, int attribute, CUdeviceptr address) {
  return gpu::call(__func__, [&](Machine& machine) {
    const Allocation* allocation = nullptr;
    require(value != nullptr && machine.device_of(address, &allocation) != nullptr,
            CUDA_ERROR_INVALID_VALUE);
    store_attribute(machine, attribute, address, value);
  });
}

CUresult cuPointerGetAttributes(unsigned count, int* attributes, void** values, CUdeviceptr address) {
  return gpu::call(__func__, [&](Machine& machine) {
    require(attributes != nullptr && values != nullptr, CUDA_ERROR_INVALID_VALUE);
    for (unsigned i = 0; i < count; ++i) store_attribute(machine, attributes[i], address, values[i]);
  });
}
