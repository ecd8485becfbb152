// SPDX-License-Identifier: Apache-2.0
#include "machine.hpp"

namespace gpu {

/// Never taken apart: hosts call to the end, and its worker does not.
Machine& Machine::get() {
  static Machine& machine = *new Machine;
  return machine;
}

ThreadState& ThreadState::get() {
  static thread_local ThreadState state;
  return state;
}

void Machine::initialize() {
  if (is_initialized) return;
  const std::vector<int> visible = settings.visible();
  require(!visible.empty(), CUDA_ERROR_NO_DEVICE);
  for (const int index : visible) {
    const int capability = settings.devices[static_cast<std::size_t>(index)];
    devices.emplace_back(new Device{index, capability, Memory(settings.memory_bytes), nullptr});
    devices.back()->primary = std::make_unique<Context>(*devices.back());
  }
  is_initialized = true;
}

Device& Machine::device(CUdevice ordinal) {
  require(ordinal >= 0 && ordinal < static_cast<int>(devices.size()), CUDA_ERROR_INVALID_DEVICE);
  return *devices[static_cast<std::size_t>(ordinal)];
}

CUdevice Machine::ordinal_of(const Device& device) const {
  for (std::size_t i = 0; i < devices.size(); ++i) {
    if (devices[i].get() == &device) return static_cast<CUdevice>(i);
  }
  return CU_DEVICE_INVALID;
}

Context& Machine::context(CUcontext handle) {
  Context* const wanted = reinterpret_cast<Context*>(handle);
  const bool is_primary = std::any_of(devices.begin(), devices.end(), [&](const auto& each) {
    return each->primary.get() == wanted;
  });
  const bool is_other = std::any_of(contexts.begin(), contexts.end(),
                                    [&](const auto& each) { return each.get() == wanted; });
  require(is_primary || is_other, CUDA_ERROR_INVALID_CONTEXT);
  return *wanted;
}

Context& Machine::current() {
  const ThreadState& thread = ThreadState::get();
  require(!thread.contexts.empty() && thread.contexts.back() != nullptr, CUDA_ERROR_INVALID_CONTEXT);
  Context& found = *thread.contexts.back();
  require(found.is_alive(), CUDA_ERROR_CONTEXT_IS_DESTROYED);
  require(found.error() == CUDA_SUCCESS, found.error());
  return found;
}

Stream& Machine::stream(CUstream handle) {
  Context& context = current();
  if (handle == nullptr || handle == CU_STREAM_LEGACY) return context.legacy();
  if (handle == CU_STREAM_PER_THREAD) return context.per_thread();
  Stream* const found = reinterpret_cast<Stream*>(handle);
  require(context.has(found), CUDA_ERROR_INVALID_HANDLE);
  return *found;
}

const Device* Machine::device_of(CUdeviceptr address, const Allocation** allocation) const {
  for (const auto& each : devices) {
    *allocation = each->memory.find(address);
    if (*allocation != nullptr) return each.get();
  }
  return nullptr;
}

WorkPointer Machine::submit(Stream& stream, std::function<void()> action,
                            const std::vector<WorkPointer>& after) {
  Context& context = *stream.context;
  if (stream.capture != nullptr) return stream.capture->add(stream, std::move(action));
  const bool is_legacy = &stream == &context.legacy();
  if (is_legacy) captures.require_no_blocking_one(context);
  const auto made = std::make_shared<Work>();
  const auto comes_after = [&](const WorkPointer& work) {
    if (work != nullptr && !work->is_done) made->before.push_back(work);
  };
  made->context = &context;
  made->action = std::move(action);
  for (const WorkPointer& each : after) comes_after(each);
  comes_after(stream.last);
  if (is_legacy) {
    context.each_blocking([&](const Stream& each) { comes_after(each.last); });
  } else if (stream.is_blocking) {
    comes_after(context.legacy().last);
  }
  stream.last = made;
  schedule.add(made);
  return made;
}

void Machine::wait(Stream& stream) {
  Context& context = *stream.context;
  captures.require_not_capturing(stream);
  std::vector<WorkPointer> awaited{stream.last};
  if (&stream == &context.legacy()) {
    context.each_blocking([&](const Stream& each) { awaited.push_back(each.last); });
  }
  schedule.wait(awaited);
  require(context.error() == CUDA_SUCCESS, context.error());
}

}  // namespace gpu
