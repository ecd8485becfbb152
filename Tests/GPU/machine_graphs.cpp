// The machine itself: graphs, and what may not be done while one is captured.
//
// SPDX-License-Identifier: Apache-2.0
#include <thread>

#include "launches.hpp"

namespace {

using test::Code;
using test::Event;
using test::Numbers;
using test::Primary;
using test::Stream;
using Values = std::vector<int>;

constexpr int global = CU_STREAM_CAPTURE_MODE_GLOBAL, relaxed = CU_STREAM_CAPTURE_MODE_RELAXED,
              of_thread = CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;

int status_of(CUstream stream) {
  int status = -1;
  DRIVER(cuStreamIsCapturing(stream, &status));
  return status;
}

CUgraphExec finished(CUstream stream) {
  CUgraph graph = nullptr;
  CUgraphExec made = nullptr;
  DRIVER(cuStreamEndCapture(stream, &graph));
  DRIVER(cuGraphInstantiateWithFlags(&made, graph, 0));
  DRIVER(cuGraphDestroy(graph));
  return made;
}

void captured_and_replayed() {
  const Primary primary;
  const Code code;
  const Numbers numbers(code, {1});
  const Stream stream, other;
  CHECK(status_of(stream) == CU_STREAM_CAPTURE_STATUS_NONE);
  DRIVER(cuStreamBeginCapture_v2(stream, global));
  CHECK(status_of(stream) == CU_STREAM_CAPTURE_STATUS_ACTIVE);
  CHECK(status_of(other) == CU_STREAM_CAPTURE_STATUS_NONE);
  numbers.add(1, stream);
  numbers.add(2, stream);
  const CUgraphExec graph = finished(stream);
  CHECK(numbers.values(other) == Values{1});
  for (int i = 1; i <= 3; ++i) {
    DRIVER(cuGraphLaunch(graph, i == 2 ? other : stream));
    DRIVER(cuCtxSynchronize());
    CHECK(numbers.values(other) == Values{1 + 3 * i});
  }
  DRIVER(cuGraphExecDestroy(graph));
  CHECK(cuGraphLaunch(graph, stream) == CUDA_ERROR_INVALID_HANDLE);
}

void streams_join_by_events() {
  const Primary primary;
  const Code code;
  const Numbers first(code, {1}), second(code, {1});
  const Stream stream, other;
  const Event fork, join;
  CUgraph graph = nullptr;
  for (const bool joins : {true, false}) {
    DRIVER(cuStreamBeginCapture_v2(stream, global));
    first.add(1, stream);
    DRIVER(cuEventRecord(fork, stream));
    DRIVER(cuStreamWaitEvent(other, fork, 0));
    CHECK(status_of(other) == CU_STREAM_CAPTURE_STATUS_ACTIVE);
    second.add(1, other);
    DRIVER(cuEventRecord(join, other));
    CHECK(cuStreamEndCapture(other, &graph) == CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
    if (!joins) break;
    DRIVER(cuStreamWaitEvent(stream, join, 0));
    const CUgraphExec made = finished(stream);
    CHECK(status_of(other) == CU_STREAM_CAPTURE_STATUS_NONE);
    DRIVER(cuGraphLaunch(made, stream));
    CHECK(first.values(stream) == Values{2} && second.values(stream) == Values{2});
  }
  CHECK(cuStreamEndCapture(stream, &graph) == CUDA_ERROR_STREAM_CAPTURE_UNJOINED && graph == nullptr);
  CHECK(status_of(stream) == CU_STREAM_CAPTURE_STATUS_NONE);
}

/// A capture in this mode; what a call says while it is under way, and whether that ends it.
template <class Call>
void expect_forbidden(int mode, CUresult error, Call call) {
  const Stream stream;
  CUgraph graph = nullptr;
  DRIVER(cuStreamBeginCapture_v2(stream, mode));
  const CUresult got = call(static_cast<CUstream>(stream));
  EXPECT(got == error, "%d instead of %d", got, error);
  const CUresult end = cuStreamEndCapture(stream, &graph);
  EXPECT(end == (error == CUDA_SUCCESS ? CUDA_SUCCESS : CUDA_ERROR_STREAM_CAPTURE_INVALIDATED),
         "the capture ended with %d", end);
}

CUresult allocate(CUstream) {
  CUdeviceptr address = 0;
  return cuMemAlloc_v2(&address, 8);
}

CUresult load(CUstream) {
  CUlibrary library = nullptr;
  return cuLibraryLoadData(&library, "software gpu 90", nullptr, nullptr, 0, nullptr, nullptr, 0);
}

void what_a_capture_forbids() {
  const Primary primary;
  const CUresult no = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  for (const int mode : {global, of_thread, relaxed}) {
    expect_forbidden(mode, no, [](CUstream stream) { return cuStreamSynchronize(stream); });
    expect_forbidden(mode, no, [](CUstream stream) { return cuStreamQuery(stream); });
    expect_forbidden(mode, no, [](CUstream) { return cuCtxSynchronize(); });
  }
  for (const auto unsafe : {allocate, load}) {
    expect_forbidden(global, no, unsafe);
    expect_forbidden(of_thread, no, unsafe);
    expect_forbidden(relaxed, CUDA_SUCCESS, unsafe);
    const auto elsewhere = [&](CUstream stream) {
      CUresult result = CUDA_SUCCESS;
      std::thread([&] {
        cuCtxPushCurrent_v2(primary.context());
        result = unsafe(stream);
      }).join();
      return result;
    };
    expect_forbidden(global, no, elsewhere);
    expect_forbidden(of_thread, CUDA_SUCCESS, elsewhere);
    int mode = relaxed;
    DRIVER(cuThreadExchangeStreamCaptureMode(&mode));
    CHECK(mode == global);
    expect_forbidden(global, CUDA_SUCCESS, unsafe);
    DRIVER(cuThreadExchangeStreamCaptureMode(&mode));
    CHECK(mode == relaxed);
  }
}

void the_default_stream() {
  const Primary primary;
  const Code code;
  const Numbers numbers(code, {1});
  CUgraph graph = nullptr;
  int status = 0;
  CHECK(cuStreamBeginCapture_v2(nullptr, global) == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  const Stream blocking(CU_STREAM_DEFAULT), free_one;
  DRIVER(cuStreamBeginCapture_v2(blocking, relaxed));
  CHECK(numbers.try_add(1, nullptr) == CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
  CHECK(cuStreamEndCapture(blocking, &graph) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  DRIVER(cuStreamBeginCapture_v2(blocking, relaxed));
  CHECK(cuStreamIsCapturing(nullptr, &status) == CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
  CHECK(cuStreamEndCapture(blocking, &graph) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  DRIVER(cuStreamBeginCapture_v2(free_one, global));
  CHECK(numbers.try_add(1, nullptr) == CUDA_SUCCESS);
  CHECK(cuStreamEndCapture(free_one, &graph) == CUDA_SUCCESS);
}

void captured_events() {
  const Primary primary;
  const Stream stream, other, third;
  const Event inside, outside;
  CUgraph graph = nullptr;
  DRIVER(cuEventRecord(outside, other));
  DRIVER(cuStreamBeginCapture_v2(stream, global));
  CHECK(cuStreamWaitEvent(stream, outside, 0) == CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
  DRIVER(cuEventRecord(inside, stream));
  DRIVER(cuStreamBeginCapture_v2(third, global));
  CHECK(cuStreamWaitEvent(third, inside, 0) == CUDA_ERROR_STREAM_CAPTURE_MERGE);
  DRIVER(cuStreamEndCapture(third, &graph));
  CHECK(cuEventSynchronize(inside) == CUDA_ERROR_CAPTURED_EVENT);
  CHECK(cuStreamEndCapture(stream, &graph) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
}

}  // namespace

int main(int argc, char** argv) {
  using test::isolated;
  return test::run(argc, argv,
                   {isolated("machine: graphs are replayed", captured_and_replayed),
                    isolated("machine: graphs of two streams", streams_join_by_events),
                    isolated("machine: what a capture forbids", what_a_capture_forbids),
                    isolated("machine: captures and the default stream", the_default_stream),
                    isolated("machine: captured events", captured_events)});
}
