// SPDX-License-Identifier: Apache-2.0
#include "library_work.hpp"

#include <cstdio>

#include "machine.hpp"

using gpu::Context;
using gpu::Machine;
using gpu::Stream;

CUresult gpu_machine_submit(CUstream stream, const gpu::LibraryWork& work) {
  return gpu::call(__func__, [&](Machine& machine) {
    Stream& found = machine.stream(stream);
    Context& context = *found.context;
    const bool reaches_pages = machine.settings.reaches_pageable_memory;
    machine.submit(found, [&context, reaches_pages, work] {
      const gpu::Memory& memory = context.device().memory;
      const gpu::Memory::Opened opened(memory);
      const auto reach = [&memory, reaches_pages](const void* address, std::size_t bytes) {
        return reaches_pages || memory.holds(reinterpret_cast<CUdeviceptr>(address), bytes);
      };
      if (work(reach)) return;
      std::fprintf(stderr, "software gpu: a library's work reaches beyond memory\n");
      context.fail(CUDA_ERROR_ILLEGAL_ADDRESS);
    });
  });
}

CUresult gpu_machine_require_no_capture() {
  return gpu::call(__func__, [](Machine& machine) {
    machine.captures.require_none(gpu::ThreadState::get().capture_mode);
  });
}
