// How long the host is busy with a run, until it is on the stream, by either engine. The model's
// own functions are part of it, which are slower than a driver's: an upper bound. No test.
//
//   make -C Tests/GPU host_time && LD_LIBRARY_PATH=.build/gpu/machine .build/gpu/host_time
//
// SPDX-License-Identifier: Apache-2.0
#include <chrono>

#include "cudnn_runs.hpp"

namespace {

using test::Attention;
using test::CuDNNRun;

double median_microseconds(const CuDNNRun& run, const test::Stream& stream) {
  std::vector<double> times;
  for (int i = 0; i < 301; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    run.on_device.launch(run.backend, stream);
    times.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count());
    stream.synchronize();
  }
  std::nth_element(times.begin(), times.begin() + 150, times.end());
  return times[150];
}

}  // namespace

int main() {
  setenv("MLA_CUDNN_LIBRARY", "libcudnn.so.9", 0);
  setenv("MLA_TEST_GPUS", "90", 0);
  const test::Primary primary;
  const test::Stream stream;
  for (const int requests : {1, 64, 512, 4096}) {
    std::vector<std::int32_t> lengths(static_cast<std::size_t>(requests), 0);
    lengths.front() = 2;
    const Attention problem = Attention::new_tokens({1, 64, 64, 128, 512}, MLA_DTYPE_BFLOAT16, lengths, 1);
    CuDNNRun run(problem), unaligned(problem, 2);
    CHECK(run.is_served("a run") && !unaligned.is_served("at odd addresses"));
    std::printf("%4d requests: %.1f us by cuDNN, %.1f us by the library's own kernels\n", requests,
                median_microseconds(run, stream), median_microseconds(unaligned, stream));
  }
}
