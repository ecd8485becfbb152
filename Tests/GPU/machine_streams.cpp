// The machine itself: when work is done, and what comes before what.
//
// SPDX-License-Identifier: Apache-2.0
#include <cstring>
#include <set>
#include <thread>

#include "launches.hpp"

namespace {

using test::Code;
using test::Event;
using test::Numbers;
using test::Primary;
using test::Stream;
using Values = std::vector<int>;

void nothing_is_done_unasked() {
  const Primary primary;
  const Code code;
  const Numbers numbers(code, {1});
  const Stream stream, other;
  numbers.add(1, stream);
  CHECK(cuStreamQuery(stream) == CUDA_ERROR_NOT_READY);
  // A stream that nothing orders with the work does not see it.
  CHECK(numbers.values(other) == Values{1});
  other.synchronize();
  CHECK(cuStreamQuery(other) == CUDA_SUCCESS && cuStreamQuery(stream) == CUDA_ERROR_NOT_READY);
  stream.synchronize();
  CHECK(cuStreamQuery(stream) == CUDA_SUCCESS);
  CHECK(numbers.values(other) == Values{2});
}

void a_stream_keeps_its_order() {
  const Primary primary;
  const Code code;
  const Numbers numbers(code, {1});
  const Stream stream;
  std::vector<int> seven{7};
  for (int i = 0; i < 5; ++i) {
    numbers.add(1, stream);
    DRIVER(cuMemcpyHtoDAsync_v2(numbers.memory().address(), seven.data(), 4, stream));
    numbers.add(3, stream);
  }
  // What is copied from is the host's again.
  seven[0] = 0;
  CHECK(numbers.values(stream) == Values{10});
}

/// Two streams, one of which sets what the other adds to.
int race(unsigned seed, bool is_ordered) {
  const Code code;
  const Numbers numbers(code, {0});
  const Stream first, second;
  const Event event;
  const int hundred = 100;
  gpu_machine_seed(seed);
  DRIVER(cuMemcpyHtoDAsync_v2(numbers.memory().address(), &hundred, 4, first));
  if (is_ordered) {
    DRIVER(cuEventRecord(event, first));
    DRIVER(cuStreamWaitEvent(second, event, 0));
  }
  numbers.add(1, second);
  DRIVER(cuCtxSynchronize());
  return numbers.values()[0];
}

void other_streams_run_in_any_order() {
  const Primary primary;
  std::set<int> results;
  for (unsigned seed = 0; seed < 40; ++seed) {
    results.insert(race(seed, false));
    CHECK(race(seed, true) == 101);
  }
  CHECK(results == std::set<int>({100, 101}));
}

void what_was_recorded_is_waited_for() {
  const Primary primary;
  const Code code;
  const Numbers numbers(code, {1});
  const Stream stream;
  const Event event, never;
  DRIVER(cuEventSynchronize(never));
  DRIVER(cuStreamWaitEvent(stream, never, 0));
  numbers.add(1, stream);
  DRIVER(cuEventRecord(event, stream));
  numbers.add(10, stream);
  CHECK(cuEventQuery(event) == CUDA_ERROR_NOT_READY);
  DRIVER(cuEventSynchronize(event));
  CHECK(cuEventQuery(event) == CUDA_SUCCESS && cuStreamQuery(stream) == CUDA_ERROR_NOT_READY);
  const Stream other;
  CHECK(numbers.values(other) == Values{2});
}

void the_legacy_stream_waits() {
  const Primary primary;
  const Code code;
  for (CUstream legacy : {static_cast<CUstream>(nullptr), CU_STREAM_LEGACY}) {
    const Numbers numbers(code, {1}), others(code, {1});
    const Stream blocking(CU_STREAM_DEFAULT), free_one;
    numbers.add(1, blocking);
    others.add(1, free_one);
    numbers.add(1, CU_STREAM_PER_THREAD);
    numbers.add(1, legacy);
    DRIVER(cuStreamSynchronize(legacy));
    CHECK(cuStreamQuery(blocking) == CUDA_SUCCESS && cuStreamQuery(free_one) == CUDA_ERROR_NOT_READY);
    const Stream reader;
    CHECK(numbers.values(reader) == Values{4});
    CHECK(others.values(reader) == Values{1});
    numbers.add(1, legacy);
    numbers.add(1, blocking);
    CHECK(numbers.values(blocking) == Values{6});
  }
}

/// Whatever comes first among work that is not ordered.
void the_legacy_stream_is_in_order() {
  const Primary primary;
  const Code code;
  const int hundred = 100, seven = 7;
  for (unsigned seed = 0; seed < 20; ++seed) {
    for (const bool is_per_thread : {false, true}) {
      gpu_machine_seed(seed);
      const Numbers numbers(code, {1});
      const Stream blocking(CU_STREAM_DEFAULT);
      const CUstream stream = is_per_thread ? CU_STREAM_PER_THREAD : static_cast<CUstream>(blocking);
      DRIVER(cuMemcpyHtoDAsync_v2(numbers.memory().address(), &hundred, 4, stream));
      numbers.add(1, nullptr);
      DRIVER(cuCtxSynchronize());
      CHECK(numbers.values() == Values{101});
      DRIVER(cuMemcpyHtoDAsync_v2(numbers.memory().address(), &seven, 4, nullptr));
      numbers.add(1, stream);
      DRIVER(cuCtxSynchronize());
      CHECK(numbers.values() == Values{8});
    }
  }
}

void a_thread_has_a_stream_of_its_own() {
  const Primary primary;
  const Code code;
  const Numbers numbers(code, {1});
  numbers.add(1, CU_STREAM_PER_THREAD);
  std::thread([&] {
    cuCtxPushCurrent_v2(primary.context());
    if (cuStreamQuery(CU_STREAM_PER_THREAD) != CUDA_SUCCESS) _exit(7);
  }).join();
  CHECK(cuStreamQuery(CU_STREAM_PER_THREAD) == CUDA_ERROR_NOT_READY);
}

void streams_that_are_none() {
  const Primary primary;
  CUstream gone = nullptr;
  int unused = 0;
  DRIVER(cuStreamCreate(&gone, 0));
  DRIVER(cuStreamDestroy_v2(gone));
  CHECK(cuStreamSynchronize(gone) == CUDA_ERROR_INVALID_HANDLE);
  CHECK(cuStreamQuery(reinterpret_cast<CUstream>(&unused)) == CUDA_ERROR_INVALID_HANDLE);
  CHECK(cuStreamDestroy_v2(nullptr) == CUDA_ERROR_INVALID_HANDLE);
}

void memory_is_not_freed_under_work() {
  const Primary primary;
  const Code code;
  {
    const Numbers numbers(code, Values(100, 1));
    const Stream stream;
    numbers.add(1, stream);
  }
  DRIVER(cuCtxSynchronize());
}

/// With the worker: without anybody waiting.
void work_is_done_at_any_moment() {
  const Primary primary;
  const Code code;
  const Numbers numbers(code, {1});
  const Stream stream;
  numbers.add(1, stream);
  for (int i = 0; cuStreamQuery(stream) == CUDA_ERROR_NOT_READY; ++i) {
    CHECK(i < 20000);
    usleep(1000);
  }
  CHECK(numbers.values(stream) == Values{2});
}

}  // namespace

int main(int argc, char** argv) {
  using test::isolated;
  const test::Environment random{{"MLA_TEST_GPU_WORK", "random"}}, worker{{"MLA_TEST_GPU_WORK", "worker"}};
  return test::run(
      argc, argv,
      {isolated("machine: nothing is done unasked", nothing_is_done_unasked),
       isolated("machine: a stream keeps its order", a_stream_keeps_its_order),
       isolated("machine: a stream keeps its order, random", a_stream_keeps_its_order, random),
       isolated("machine: a stream keeps its order, worker", a_stream_keeps_its_order, worker),
       isolated("machine: other streams run in any order", other_streams_run_in_any_order),
       isolated("machine: other streams run in any order, random", other_streams_run_in_any_order, random),
       isolated("machine: events", what_was_recorded_is_waited_for),
       isolated("machine: the legacy stream waits", the_legacy_stream_waits),
       isolated("machine: the legacy stream is in order", the_legacy_stream_is_in_order),
       isolated("machine: a thread has a stream of its own", a_thread_has_a_stream_of_its_own),
       isolated("machine: streams that are none", streams_that_are_none),
       isolated("machine: memory is not freed under work", memory_is_not_freed_under_work),
       isolated("machine: work is done at any moment", work_is_done_at_any_moment, worker)});
}
