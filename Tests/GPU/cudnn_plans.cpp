// cuDNN's plans: which batches share one, how they are kept, who uses them at the same time.
//
// SPDX-License-Identifier: Apache-2.0
#include <filesystem>
#include <fstream>
#include <thread>

#include "cudnn_runs.hpp"

namespace {

using test::Attention;
using test::CuDNNRun;
using test::Model;
using test::Primary;
using Lengths = std::vector<std::int32_t>;
namespace fs = std::filesystem;

const Model model{2, 64, 64, 128, 512};

Attention problem_of(const Lengths& lengths, unsigned seed = 3) {
  return Attention::new_tokens(model, MLA_DTYPE_BFLOAT16, lengths, seed);
}

std::vector<fs::path> plans() {
  std::vector<fs::path> found;
  const fs::path folder = std::getenv("MLA_CACHE_DIR");
  if (!fs::exists(folder)) return found;
  for (const auto& each : fs::directory_iterator(folder)) {
    if (each.path().extension() == ".plan") found.push_back(each.path());
  }
  return found;
}

void expect_served(const Lengths& lengths = {40, 21}) { CHECK(CuDNNRun(problem_of(lengths)).is_served("a run")); }

/// Few plans for all batches; nothing that a run makes outlives it.
void shared() {
  const Primary primary;
  const auto expect_made = [](const Lengths& lengths, long made) {
    expect_served(lengths);
    EXPECT(gpu_cudnn_compilations() == made, "%ld plans, not %ld", gpu_cudnn_compilations(), made);
  };
  expect_made({40, 21}, 1);
  const long objects = gpu_cudnn_objects();
  expect_made({2}, 1);
  expect_made({128, 1, 0, 9}, 1);
  expect_made(Lengths(64, 2), 1);
  CHECK(gpu_cudnn_objects() == objects);
  expect_made({129, 3}, 2);
  expect_made(Lengths(65, 2), 3);
  expect_made({200, 3}, 3);
  CuDNNRun context(Attention::context(model, MLA_DTYPE_BFLOAT16, {9, 3}, {30, 0}, 3));
  CHECK(context.is_served("context") && gpu_cudnn_compilations() == 4);
  CHECK(plans().size() == 4);
}

/// Plans that are there before the first run: it may be captured.
void expect_plans_of(mla::backend& backend, const Model& shape, std::int32_t dtype) {
  const test::Stream stream;
  const long made = gpu_cudnn_compilations();
  for (const Lengths& lengths : {Lengths{40, 21}, Lengths{150}}) {
    Attention problem = Attention::new_tokens(shape, dtype, lengths, 5);
    test::DeviceAttention on_device(problem);
    on_device.prepare(backend);
    // As vLLM's kv_nope has it.
    test::Array wide(dtype, {problem.v.size(0), shape.heads, 256});
    problem.v.each([&](std::int64_t i, std::int64_t j, std::int64_t d) { wide.set(i, j, 128 + d, problem.v.at(i, j, d)); });
    const test::DeviceArray device_wide(wide);
    on_device.upload(stream);
    device_wide.upload(wide, stream);
    const long before = test::executions();
    const test::CapturedGraph graph(stream, [&] {
      backend.run_prefill_new_tokens(on_device.q.view(), on_device.k.view(), device_wide.view().narrow(2, 128, 256),
                                     on_device.out.view(), &on_device.lse.view(), on_device.scratch, stream);
    });
    graph.launch(stream);
    on_device.download(stream);
    test::expect_close(problem, test::reference_of(problem), "captured");
    CHECK(test::executions() == before + 1 && gpu_cudnn_compilations() == made);
  }
}

void warmed_up() {
  const Primary primary;
  const Model deepseek{2, 128, 64, 128, 512}, one_head{1, 128, 64, 128, 512};
  mla::backend backend("TOKENSPEED_MLA", test::config_on(deepseek));
  const std::vector<std::int32_t> dtypes{MLA_DTYPE_BFLOAT16, MLA_DTYPE_FLOAT16};
  for (const std::int32_t dtype : dtypes) expect_plans_of(backend, deepseek, dtype);
  mla::backend another("TOKENSPEED_MLA", test::config_on(deepseek)), other("TRTLLM_RAGGED", test::config_on(one_head));
  // Of each dtype eight of attention, three of projections.
  CHECK(gpu_cudnn_compilations() == 22);
  other.warm_up();
  for (const std::int32_t dtype : dtypes) expect_plans_of(other, one_head, dtype);
  other.warm_up();
  CHECK(gpu_cudnn_compilations() == 44);
}

/// Strides that are new in each call: some get plans of their own, the rest none.
void strides_without_end() {
  const Primary primary;
  int served = 0;
  for (std::int64_t padding = 0; padding < 262; ++padding) {
    served += CuDNNRun(Attention::new_tokens({1, 64, 64, 128, 512}, MLA_DTYPE_BFLOAT16, {3}, 1, 8 * padding)).is_served("a run");
  }
  EXPECT(served == 256 && gpu_cudnn_compilations() == 256, "%d of 262 are served", served);
}

/// As another process, what it has made before it.
void expect_process(long compiled, long loaded, const char* version = "9.25.1") {
  const int end = test::end_of([&] {
    setenv("MLA_TEST_GPU_CUDNN", version, 1);
    try {
      const Primary primary;
      expect_served();
      EXPECT(gpu_cudnn_compilations() == compiled && gpu_cudnn_loads() == loaded, "%ld compiled, %ld loaded",
             gpu_cudnn_compilations(), gpu_cudnn_loads());
    } catch (const std::exception& failure) {
      std::printf("  in a process: %s\n", failure.what());
      std::fflush(stdout);
      _exit(1);
    }
  });
  CHECK(end == 0);
}

void kept() {
  expect_process(1, 0);
  expect_process(0, 1);
  // Of another version it is another's.
  expect_process(1, 0, "9.26.0");
  expect_process(0, 1, "9.26.0");
  CHECK(plans().size() == 2);
}

/// Cut short, changed, or of a device that cuDNN does not know it for: made again.
void damaged() {
  expect_process(1, 0);
  CHECK(plans().size() == 1);
  const fs::path file = plans().front();
  const auto size = fs::file_size(file);
  fs::resize_file(file, size / 2);
  expect_process(1, 0);
  CHECK(fs::file_size(file) == size);
  {
    std::fstream changed(file, std::ios::in | std::ios::out | std::ios::binary);
    changed.seekp(static_cast<std::streamoff>(size / 2));
    changed.put('?');
  }
  expect_process(1, 0);
  expect_process(0, 1);
}

/// Whole, but cuDNN will not have it: what a device of the same name but another kind made.
void not_taken() {
  expect_process(1, 0);
  const fs::path file = plans().front();
  const int end = test::end_of([&] {
    setenv("MLA_TEST_GPUS", "100", 1);
    expect_process(1, 0);
  });
  CHECK(end == 0 && plans().size() == 2);
  const std::vector<fs::path> both = plans();
  fs::copy_file(both[0] == file ? both[1] : both[0], file, fs::copy_options::overwrite_existing);
  expect_process(1, 0);
  expect_process(0, 1);
}

/// Where nothing can be kept, it is said, and each process compiles.
void unwritable() {
  const int end = test::end_of([] {
    const test::Logged logged;
    expect_process(1, 0);
    expect_process(1, 0);
    const Primary primary;
    expect_served();
    CHECK(logged.count("could not be kept") >= 1);
  });
  CHECK(end == 0);
}

void two_processes() {
  const int end = test::end_of([] {
    std::vector<pid_t> children;
    for (int i = 0; i < 4; ++i) {
      const pid_t child = fork();
      if (child == 0) {
        int status = 0;
        try {
          const Primary primary;
          for (int j = 0; j < 3; ++j) expect_served();
          status = gpu_cudnn_compilations() + gpu_cudnn_loads() == 1 ? 0 : 2;
        } catch (const std::exception& failure) {
          std::printf("  %s\n", failure.what());
          status = 1;
        }
        std::fflush(stdout);
        _exit(status);
      }
      children.push_back(child);
    }
    for (const pid_t child : children) {
      int status = 0;
      if (waitpid(child, &status, 0) != child || status != 0) _exit(1);
    }
  });
  CHECK(end == 0 && plans().size() == 1);
  expect_process(0, 1);
}

/// On one object, each on its own stream: plans are shared, handles are not.
void threads() {
  std::vector<std::string> failures(3);
  const auto work = [&](std::size_t index) {
    try {
      const Primary primary;
      for (unsigned i = 0; i < 6; ++i) {
        CuDNNRun run(problem_of({40, 0, static_cast<std::int32_t>(3 + i)}, i + 50 * static_cast<unsigned>(index)));
        CHECK(run.is_served("a thread"));
      }
    } catch (const std::exception& failure) {
      failures[index] = failure.what();
    }
  };
  std::thread first(work, 1), second(work, 2);
  work(0);
  first.join();
  second.join();
  for (const std::string& each : failures) EXPECT(each.empty(), "%s", each.c_str());
  const long compiled = gpu_cudnn_compilations() + gpu_cudnn_loads();
  EXPECT(compiled <= 3 && gpu_cudnn_calls("cudnnCreate") <= 3, "%ld plans", compiled);
}

void two_devices() {
  for (const CUdevice device : {0, 1, 0, 1}) {
    const Primary primary(device);
    CuDNNRun run(problem_of({40, 21}), test::config_on(model, device));
    CHECK(run.is_served("a device"));
  }
  // Of the same kind: the second has the first's file.
  CHECK(gpu_cudnn_compilations() == 1 && gpu_cudnn_loads() == 1 && gpu_cudnn_calls("cudnnCreate") == 2);
}

}  // namespace

int main(int argc, char** argv) {
  setenv("MLA_CUDNN_LIBRARY", "libcudnn.so.9", 1);
  // Each in a folder of its own, none of which is there yet.
  const std::string root = std::string(std::getenv("MLA_CACHE_DIR")) + "/plans";
  fs::remove_all(root);
  static std::vector<std::string> folders;
  folders.reserve(20);
  const auto isolated = [&](const char* name, void (*body)()) {
    folders.push_back(root + "/" + std::to_string(folders.size()));
    const bool is_of_blackwell = body == warmed_up;
    return test::isolated(name, body, {{"MLA_CACHE_DIR", folders.back().c_str()},
                                       {"MLA_TEST_GPUS", is_of_blackwell ? "100" : "90,90"}});
  };
  return test::run_on("90,90", argc, argv,
                      {isolated("cudnn: plans are shared", shared), isolated("cudnn: plans have an end", strides_without_end),
                       isolated("cudnn: plans made ahead", warmed_up),
                       isolated("cudnn: plans are kept", kept),
                       isolated("cudnn: damaged plans", damaged), isolated("cudnn: plans of others", not_taken),
                       test::isolated("cudnn: plans that cannot be kept", unwritable, {{"MLA_CACHE_DIR", "/proc/none"}}),
                       isolated("cudnn: plans of several processes", two_processes),
                       isolated("cudnn: plans of several threads", threads),
                       isolated("cudnn: plans of two devices", two_devices)});
}
