// The driver's functions of streams, events and graphs.
//
// SPDX-License-Identifier: Apache-2.0
#include <chrono>

#include "machine.hpp"

using gpu::Context;
using gpu::Event;
using gpu::Graph;
using gpu::Machine;
using gpu::require;
using gpu::Stream;
using gpu::ThreadState;
using gpu::Work;
using gpu::WorkPointer;

namespace {

double milliseconds_now() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double, std::milli>(now).count();
}

bool is_done(const WorkPointer& work) { return work == nullptr || work->is_done; }

void require_outside_of_captures(const Event& event) {
  if (event.capture == nullptr) return;
  event.capture->is_invalid = true;
  throw gpu::Failure{CUDA_ERROR_CAPTURED_EVENT};
}

}  // namespace

CUresult cuStreamCreate(CUstream* stream, unsigned flags) {
  return gpu::call(__func__, [&](Machine& machine) {
    require(stream != nullptr && flags <= CU_STREAM_NON_BLOCKING, CUDA_ERROR_INVALID_VALUE);
    Stream& made = machine.current().create_stream(flags == CU_STREAM_DEFAULT);
    *stream = reinterpret_cast<CUstream>(&made);
  });
}

CUresult cuStreamDestroy_v2(CUstream stream) {
  return gpu::call(__func__, [&](Machine& machine) {
    Context& context = machine.current();
    Stream& gone = machine.stream(stream);
    require(context.has(&gone), CUDA_ERROR_INVALID_HANDLE);
    machine.captures.require_not_capturing(gone);
    context.destroy_stream(gone);
  });
}

CUresult cuStreamSynchronize(CUstream stream) {
  return gpu::call(__func__, [&](Machine& machine) { machine.wait(machine.stream(stream)); });
}

CUresult cuStreamQuery(CUstream stream) {
  return gpu::call(__func__, [&](Machine& machine) {
    Stream& found = machine.stream(stream);
    machine.captures.require_not_capturing(found);
    require(is_done(found.last), CUDA_ERROR_NOT_READY);
  });
}

CUresult cuStreamGetCtx(CUstream stream, CUcontext* context) {
  return gpu::call(__func__, [&](Machine& machine) {
    *context = gpu::handle_of(*machine.stream(stream).context);
  });
}

CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags) {
  return gpu::call(__func__, [&](Machine& machine) {
    require(flags == 0, CUDA_ERROR_INVALID_VALUE);
    Stream& waiting = machine.stream(stream);
    const Event& awaited = machine.events.get(event);
    if (awaited.capture != nullptr) {
      require(waiting.capture == nullptr || waiting.capture == awaited.capture,
              CUDA_ERROR_STREAM_CAPTURE_MERGE);
      require(&waiting != &waiting.context->legacy(), CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
      waiting.capture = awaited.capture;
      waiting.capture->join(waiting, awaited.captured);
      return;
    }
    if (awaited.recorded == nullptr) return;
    require(waiting.capture == nullptr, CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
    machine.submit(waiting, {}, {awaited.recorded});
  });
}

CUresult cuEventCreate(CUevent* event, unsigned flags) {
  return gpu::call(__func__, [&](Machine& machine) {
    require(event != nullptr && flags <= 3, CUDA_ERROR_INVALID_VALUE);
    *event = machine.events.add({&machine.current(), nullptr, nullptr, {}, std::make_shared<double>(0)});
  });
}

CUresult cuEventDestroy_v2(CUevent event) {
  return gpu::call(__func__, [&](Machine& machine) { machine.events.remove(event); });
}

CUresult cuEventRecord(CUevent event, CUstream stream) {
  return gpu::call(__func__, [&](Machine& machine) {
    Stream& found = machine.stream(stream);
    Event& recorded = machine.events.get(event);
    require(recorded.context == found.context, CUDA_ERROR_INVALID_HANDLE);
    recorded.capture = found.capture;
    recorded.captured = found.captured_last;
    if (found.capture != nullptr) return;
    recorded.recorded =
        machine.submit(found, [time = recorded.time] { *time = milliseconds_now(); });
  });
}

CUresult cuEventQuery(CUevent event) {
  return gpu::call(__func__, [&](Machine& machine) {
    const Event& found = machine.events.get(event);
    require_outside_of_captures(found);
    require(is_done(found.recorded), CUDA_ERROR_NOT_READY);
  });
}

CUresult cuEventSynchronize(CUevent event) {
  return gpu::call(__func__, [&](Machine& machine) {
    const Event& found = machine.events.get(event);
    require_outside_of_captures(found);
    machine.schedule.wait({found.recorded});
    require(found.context->error() == CUDA_SUCCESS, found.context->error());
  });
}

CUresult cuEventElapsedTime(float* milliseconds, CUevent begin, CUevent end) {
  return gpu::call(__func__, [&](Machine& machine) {
    const Event &first = machine.events.get(begin), &last = machine.events.get(end);
    require(first.recorded != nullptr && last.recorded != nullptr, CUDA_ERROR_INVALID_HANDLE);
    require(first.recorded->is_done && last.recorded->is_done, CUDA_ERROR_NOT_READY);
    *milliseconds = static_cast<float>(*last.time - *first.time);
  });
}

CUresult cuStreamBeginCapture_v2(CUstream stream, int mode) {
  return gpu::call(__func__, [&](Machine& machine) {
    machine.captures.begin(machine.stream(stream), mode);
  });
}

CUresult cuStreamEndCapture(CUstream stream, CUgraph* graph) {
  return gpu::call(__func__, [&](Machine& machine) {
    *graph = nullptr;
    *graph = machine.graphs.add(machine.captures.end(machine.stream(stream)));
  });
}

CUresult cuStreamIsCapturing(CUstream stream, int* status) {
  return gpu::call(__func__, [&](Machine& machine) {
    Stream& found = machine.stream(stream);
    if (&found == &found.context->legacy()) machine.captures.require_no_blocking_one(*found.context);
    *status = found.capture == nullptr         ? CU_STREAM_CAPTURE_STATUS_NONE
              : found.capture->is_invalid      ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                               : CU_STREAM_CAPTURE_STATUS_ACTIVE;
  });
}

CUresult cuThreadExchangeStreamCaptureMode(int* mode) {
  return gpu::call(__func__, [&](Machine&) {
    require(*mode >= CU_STREAM_CAPTURE_MODE_GLOBAL && *mode <= CU_STREAM_CAPTURE_MODE_RELAXED,
            CUDA_ERROR_INVALID_VALUE);
    std::swap(*mode, ThreadState::get().capture_mode);
  });
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec* made, CUgraph graph, unsigned long long flags) {
  return gpu::call(__func__, [&](Machine& machine) {
    require(made != nullptr && flags == 0, CUDA_ERROR_INVALID_VALUE);
    *made = machine.executable_graphs.add(Graph(machine.graphs.get(graph)));
  });
}

CUresult cuGraphLaunch(CUgraphExec graph, CUstream stream) {
  return gpu::call(__func__, [&](Machine& machine) {
    Stream& found = machine.stream(stream);
    require(found.capture == nullptr, CUDA_ERROR_NOT_SUPPORTED);
    const Graph& launched = machine.executable_graphs.get(graph);
    const WorkPointer entry = machine.submit(found, {});
    std::map<WorkPointer, WorkPointer> copies;
    std::vector<WorkPointer> all;
    for (const WorkPointer& node : launched.nodes) {
      const auto copy = std::make_shared<Work>();
      copy->context = node->context;
      copy->action = node->action;
      copy->before = {entry};
      for (const WorkPointer& each : node->before) copy->before.push_back(copies.at(each));
      machine.schedule.add(copy);
      copies[node] = copy;
      all.push_back(copy);
    }
    machine.submit(found, {}, all);
  });
}

CUresult cuGraphDestroy(CUgraph graph) {
  return gpu::call(__func__, [&](Machine& machine) { machine.graphs.remove(graph); });
}

CUresult cuGraphExecDestroy(CUgraphExec graph) {
  return gpu::call(__func__, [&](Machine& machine) { machine.executable_graphs.remove(graph); });
}
