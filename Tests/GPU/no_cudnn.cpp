// Hosts without a cuDNN that can be loaded: the library's own kernels serve, which is no fault.
//
// SPDX-License-Identifier: Apache-2.0
#include "cudnn_runs.hpp"

namespace {

using test::Attention;

void run(Attention problem) {
  const test::Stream stream;
  mla::backend backend("FLASH_ATTN", test::config_on(problem.model));
  test::DeviceAttention(problem).run(backend, stream);
  test::expect_close(problem, test::reference_of(problem), "without cuDNN");
  CHECK(backend.workspace_size() == 0);
}

/// - Parameter lines: how often the log says so.
void expect_unserved(int lines) {
  const test::Logged logged;
  const test::Primary primary;
  const test::Model model{2, 128, 64, 128, 512};
  run(Attention::new_tokens(model, MLA_DTYPE_BFLOAT16, {40, 21}, 1));
  run(Attention::context(model, MLA_DTYPE_BFLOAT16, {9}, {30}, 2));
  EXPECT(logged.count("cudnn") == lines && logged.count("cuDNN") == lines, "%d lines", logged.count("cudnn"));
  CHECK(logged.count("libcudnn.so.9: file too short") == lines);
}

}  // namespace

int main(int argc, char** argv) {
  using test::isolated;
  return test::run_on("90", argc, argv,
                      {isolated("no cuDNN: nothing is said", [] { expect_unserved(0); }, {{"MLA_CUDNN_LIBRARY", ""}}),
                       isolated("no cuDNN: one that is named is missed", [] { expect_unserved(1); },
                                {{"MLA_CUDNN_LIBRARY", "libcudnn.so.9"}})});
}
