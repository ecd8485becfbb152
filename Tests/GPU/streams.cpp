// Runs on a caller's streams: when they are done, what they leave alone; threads, devices.
//
// SPDX-License-Identifier: Apache-2.0
#include <thread>

#include "device_attention.hpp"

namespace {

using test::Attention;
using test::DeviceAttention;
using test::Model;
using test::Primary;
using test::Stream;
using Lengths = std::vector<std::int32_t>;

const Model model{2, 64, 64, 128, 512};

Attention problem_of(unsigned seed, const Lengths& lengths = {40, 0, 3}) {
  return Attention::new_tokens(model, MLA_DTYPE_BFLOAT16, lengths, seed);
}

void expect_right(const Attention& problem, const std::string& what) {
  test::expect_close(problem, test::reference_of(problem), what);
}

void a_run_returns_before_it_is_done() {
  const Primary primary;
  const Stream stream, other;
  Attention problem = problem_of(1), early = problem;
  DeviceAttention on_device(problem);
  mla::backend backend("FLASH_ATTN", test::config_on(model));
  on_device.prepare(backend);
  on_device.upload(stream);
  stream.synchronize();
  on_device.launch(backend, stream);
  CHECK(cuStreamQuery(stream) == CUDA_ERROR_NOT_READY);
  on_device.out.download(early.out, other);
  CHECK(std::isnan(early.out.at(0, 0, 0)));
  on_device.download(stream);
  expect_right(problem, "when it is done");
}

void default_streams() {
  const Primary primary;
  mla::backend backend("FLASH_ATTN", test::config_on(model));
  for (CUstream stream : {static_cast<CUstream>(nullptr), CU_STREAM_LEGACY, CU_STREAM_PER_THREAD}) {
    Attention problem = problem_of(2);
    DeviceAttention(problem).run(backend, stream);
    expect_right(problem, "a default stream");
  }
}

void what_is_asked_of_the_driver() {
  const Primary primary;
  const Stream stream;
  Attention problem = problem_of(3);
  // Which is for the library's own kernels alone.
  problem.out = test::Array(MLA_DTYPE_FLOAT32, {43, model.heads, model.v});
  DeviceAttention on_device(problem);
  mla::backend backend("FLASH_ATTN", test::config_on(model));
  on_device.upload(stream);
  const long before = gpu_machine_calls(nullptr);
  backend.prepare_metadata(problem.q_loc);
  mla::backend copy = backend.clone();
  EXPECT(gpu_machine_calls(nullptr) == before, "preparing called the driver");
  const auto of_a_run = [] {
    long sum = 0;
    for (const char* name : {"cuCtxPushCurrent_v2", "cuPointerGetAttribute", "cuLaunchKernel",
                             "cuCtxPopCurrent_v2"}) {
      sum += gpu_machine_calls(name);
    }
    return sum;
  };
  const long calls = of_a_run(), launches = gpu_machine_calls("cuLaunchKernel");
  on_device.launch(backend, stream);
  CHECK(of_a_run() > calls && gpu_machine_calls("cuLaunchKernel") == launches + 1);
  EXPECT(gpu_machine_calls(nullptr) - before == of_a_run() - calls, "a run called something else");
}

CUcontext current_context() {
  CUcontext context = nullptr;
  DRIVER(cuCtxGetCurrent(&context));
  return context;
}

/// A thread without a context, and one with another device's.
void contexts_stay_in_place() {
  const Primary first(0);
  const Stream stream;
  Attention problem = problem_of(4);
  DeviceAttention on_device(problem);
  on_device.upload(stream);
  mla_backend_config config = test::config_on(model);
  mla::backend backend("FLASH_ATTN", config);
  on_device.prepare(backend);
  const Primary second(1);
  CHECK(current_context() == second.context());
  on_device.launch(backend, stream);
  mla::backend another("FLASH_ATTN", config);
  CHECK(current_context() == second.context());
  std::thread([&] {
    on_device.launch(backend, stream);
    if (current_context() != nullptr) _exit(7);
  }).join();
  DRIVER(cuCtxPushCurrent_v2(first.context()));
  on_device.download(stream);
  DRIVER(cuCtxPopCurrent_v2(nullptr));
  expect_right(problem, "under another device's context");
}

/// Each with its work on its own stream, in any order; one waits for the other by an event.
void two_streams() {
  const Primary primary;
  mla::backend backend("FLASH_ATTN", test::config_on(model));
  for (unsigned seed = 0; seed < 10; ++seed) {
    gpu_machine_seed(seed);
    const Stream first, second;
    const test::Event uploaded;
    Attention one = problem_of(seed), two = problem_of(seed + 100);
    DeviceAttention on_first(one), on_second(two);
    on_first.prepare(backend);
    on_first.upload(first);
    on_second.upload(first);
    DRIVER(cuEventRecord(uploaded, first));
    DRIVER(cuStreamWaitEvent(second, uploaded, 0));
    on_first.launch(backend, first);
    on_second.launch(backend, second);
    on_second.download(second);
    on_first.download(first);
    expect_right(one, "the first stream");
    expect_right(two, "the second stream");
  }
}

/// On one object.
void two_threads() {
  mla::backend backend("FLASH_ATTN", test::config_on(model));
  backend.prepare_metadata(test::offsets_of({40, 0, 3}));
  std::vector<std::string> failures(2);
  const auto work = [&](std::size_t index) {
    try {
      const Primary primary;
      const Stream stream;
      for (unsigned i = 0; i < 8; ++i) {
        Attention problem = problem_of(i + 50 * static_cast<unsigned>(index));
        DeviceAttention on_device(problem);
        on_device.reserve(backend);
        on_device.upload(stream);
        on_device.launch(backend, stream);
        on_device.download(stream);
        expect_right(problem, "a thread");
      }
    } catch (const std::exception& failure) {
      failures[index] = failure.what();
    }
  };
  std::thread other(work, 1);
  work(0);
  other.join();
  for (const std::string& each : failures) EXPECT(each.empty(), "%s", each.c_str());
}

/// First uses at the same time: of two, the same one.
void first_use_by_threads() {
  std::vector<std::thread> threads;
  std::vector<mla_status> made(6, -1);
  for (std::size_t i = 0; i < made.size(); ++i) {
    threads.emplace_back([&made, i] {
      const mla_backend_config config = test::config_on(model, static_cast<CUdevice>(i % 2));
      mla_backend* backend = nullptr;
      made[i] = mla_backend_create("FLASH_ATTN", &config, &backend);
      mla_backend_destroy(backend);
    });
  }
  for (std::thread& each : threads) each.join();
  for (const mla_status each : made) CHECK(each == MLA_OK);
}

void two_devices() {
  std::vector<std::unique_ptr<mla::backend>> backends;
  for (CUdevice device : {0, 1}) {
    backends.push_back(std::make_unique<mla::backend>("FLASH_ATTN", test::config_on(model, device)));
  }
  for (int i = 0; i < 4; ++i) {
    const CUdevice device = i % 2;
    const Primary primary(device);
    const Stream stream;
    Attention problem = problem_of(static_cast<unsigned>(i));
    DeviceAttention(problem, device).run(*backends[static_cast<std::size_t>(device)], stream);
    expect_right(problem, "device " + std::to_string(device));
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<test::Case> cases{
      test::isolated("device: a run returns before it is done", a_run_returns_before_it_is_done),
      test::isolated("device: what is asked of the driver", what_is_asked_of_the_driver)};
  for (const char* work : {"late", "random", "worker"}) {
    const test::Environment environment{{"MLA_TEST_GPU_WORK", work}, {"MLA_TEST_GPUS", "90,80"}};
    const auto add = [&](const char* name, void (*body)()) {
      cases.push_back(test::isolated(std::string("device: ") + name + ", " + work, body, environment));
    };
    add("default streams", default_streams);
    add("contexts stay in place", contexts_stay_in_place);
    add("two streams", two_streams);
    add("two threads", two_threads);
    add("first use by threads", first_use_by_threads);
    add("two devices", two_devices);
  }
  return test::run(argc, argv, cases);
}
