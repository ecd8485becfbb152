// The driver's functions of code: libraries, kernels, launches.
//
// SPDX-License-Identifier: Apache-2.0
#include <cstdio>

#include "machine.hpp"

using gpu::Context;
using gpu::Kernel;
using gpu::Machine;
using gpu::Memory;
using gpu::require;
using gpu::Stream;

namespace {

constexpr int shared_bytes_unasked = 48 * 1024;
constexpr std::size_t parameter_bytes_at_most = 4096;

struct Shape {
  unsigned x, y, z;
  std::size_t count() const { return std::size_t{x} * y * z; }
};

struct Launch {
  const SoftwareGPU::Kernel* kernel;
  Shape grid, block;
  unsigned shared_bytes;
  std::vector<unsigned char> parameters;
};

CUresult error_of(SoftwareGPU::Fault fault) {
  switch (fault) {
    case SoftwareGPU::Fault::none: return CUDA_SUCCESS;
    case SoftwareGPU::Fault::illegal_address: return CUDA_ERROR_ILLEGAL_ADDRESS;
    default: return CUDA_ERROR_LAUNCH_FAILED;
  }
}

/// What the kernel may touch is the device's memory, while it runs.
void run(const Launch& launch, Context& context, bool reaches_pageable_memory, unsigned seed) {
  const Memory& memory = context.device().memory;
  const Memory::Opened opened(memory);
  // Something is allowed always: nothing would mean everything.
  static const char nothing = 0;
  if (!reaches_pageable_memory) SoftwareGPU::memory.allow(&nothing, 1);
  for (const auto& [address, each] : memory.allocations()) {
    if (reaches_pageable_memory) break;
    SoftwareGPU::memory.allow(reinterpret_cast<const void*>(address), each.bytes);
  }
  SoftwareGPU::Options options;
  options.seed = seed;
  options.machine = 1 + static_cast<std::uint64_t>(context.device().physical_index);
  const SoftwareGPU::Grid grid{static_cast<int>(launch.grid.x), static_cast<int>(launch.grid.y),
                               static_cast<int>(launch.grid.z)};
  const SoftwareGPU::Result result =
      SoftwareGPU::launch(*launch.kernel, grid, static_cast<int>(launch.block.count()),
                          launch.shared_bytes, launch.parameters.data(), launch.parameters.size(), options);
  SoftwareGPU::memory.stop_checking();
  if (result.ok()) return;
  std::fprintf(stderr, "software gpu: %s\n", result.text.c_str());
  context.fail(error_of(result.fault));
}

void check_launch(const Machine& machine, const Kernel& kernel, const Launch& launch,
                  const Context& context) {
  const auto device = static_cast<std::size_t>(machine.ordinal_of(context.device()));
  const Shape &grid = launch.grid, &block = launch.block;
  require(grid.count() > 0 && block.count() > 0, CUDA_ERROR_INVALID_VALUE);
  require(grid.x <= 0x7FFFFFFF && grid.y <= 65535 && grid.z <= 65535, CUDA_ERROR_INVALID_VALUE);
  require(block.x <= 1024 && block.y <= 1024 && block.z <= 64 && block.count() <= 1024,
          CUDA_ERROR_INVALID_VALUE);
  require(block.count() <= static_cast<std::size_t>(launch.kernel->threads),
          CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES);
  require(launch.shared_bytes <= static_cast<unsigned>(kernel.shared_bytes[device]),
          CUDA_ERROR_INVALID_VALUE);
}

/// Kernels have one parameter, a struct.
std::vector<unsigned char> parameters_of(const SoftwareGPU::Kernel& kernel, void** values) {
  require(kernel.parameter_bytes <= parameter_bytes_at_most && values != nullptr && values[0] != nullptr,
          CUDA_ERROR_INVALID_VALUE);
  const auto* begin = static_cast<const unsigned char*>(values[0]);
  return {begin, begin + kernel.parameter_bytes};
}

int& shared_bytes_of(Machine& machine, Kernel& kernel, CUdevice device) {
  machine.device(device);
  return kernel.shared_bytes[static_cast<std::size_t>(device)];
}

}  // namespace

CUresult cuLibraryLoadData(CUlibrary* library, const void* code, int* jit_options, void** jit_values,
                           unsigned jit_count, int* options, void** values, unsigned count) {
  return gpu::call(__func__, [&](Machine& machine) {
    require(library != nullptr && (jit_count == 0 || (jit_options != nullptr && jit_values != nullptr)) &&
                (count == 0 || (options != nullptr && values != nullptr)),
            CUDA_ERROR_INVALID_VALUE);
    machine.captures.require_none(gpu::ThreadState::get().capture_mode);
    gpu::Image image(code, machine.settings.driver_version);
    const bool runs_somewhere =
        std::any_of(machine.devices.begin(), machine.devices.end(),
                    [&](const auto& each) { return image.runs_on(each->capability); });
    require(runs_somewhere, CUDA_ERROR_NO_BINARY_FOR_GPU);
    *library = machine.libraries.add(std::move(image));
  });
}

CUresult cuLibraryUnload(CUlibrary library) {
  return gpu::call(__func__, [&](Machine& machine) { machine.libraries.remove(library); });
}

CUresult cuLibraryGetKernel(CUkernel* kernel, CUlibrary library, const char* name) {
  return gpu::call(__func__, [&](Machine& machine) {
    require(kernel != nullptr && name != nullptr, CUDA_ERROR_INVALID_VALUE);
    const SoftwareGPU::Kernel* const code = SoftwareGPU::find(name);
    require(machine.libraries.get(library).has(name) && code != nullptr, CUDA_ERROR_NOT_FOUND);
    *kernel = machine.kernels.first(
        [&](const Kernel& each) { return each.library == library && each.code == code; });
    if (*kernel != nullptr) return;
    *kernel = machine.kernels.add(
        {library, code, std::vector<int>(machine.devices.size(), shared_bytes_unasked)});
  });
}

CUresult cuKernelSetAttribute(int attribute, int value, CUkernel kernel, CUdevice device) {
  return gpu::call(__func__, [&](Machine& machine) {
    int& shared_bytes = shared_bytes_of(machine, machine.kernels.get(kernel), device);
    require(attribute == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES && value >= 0 &&
                value <= machine.device(device).shared_bytes_at_most(),
            CUDA_ERROR_INVALID_VALUE);
    shared_bytes = value;
  });
}

CUresult cuKernelGetAttribute(int* value, int attribute, CUkernel kernel, CUdevice device) {
  return gpu::call(__func__, [&](Machine& machine) {
    require(attribute == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, CUDA_ERROR_INVALID_VALUE);
    *value = shared_bytes_of(machine, machine.kernels.get(kernel), device);
  });
}

CUresult cuLaunchKernel(CUkernel kernel, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                        unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                        CUstream stream, void** parameters, void** extra) {
  return gpu::call(__func__, [&](Machine& machine) {
    require(extra == nullptr, CUDA_ERROR_NOT_SUPPORTED);
    Stream& found = machine.stream(stream);
    Context& context = *found.context;
    const Kernel& launched = machine.kernels.get(kernel);
    require(machine.libraries.get(launched.library).runs_on(context.device().capability),
            CUDA_ERROR_NO_BINARY_FOR_GPU);
    const Launch launch{launched.code,
                        {grid_x, grid_y, grid_z},
                        {block_x, block_y, block_z},
                        shared_bytes,
                        parameters_of(*launched.code, parameters)};
    check_launch(machine, launched, launch, context);
    machine.submit(found, [&machine, &context, launch] {
      run(launch, context, machine.settings.reaches_pageable_memory, machine.schedule.any());
    });
  });
}
