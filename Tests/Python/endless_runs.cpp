// Threads that Python has never seen and that run one of its backends until the process ends.
//
// SPDX-License-Identifier: Apache-2.0
#include <thread>
#include <vector>

#include "mla_prefill.hpp"

namespace {

mla_tensor dense(std::vector<float>& memory, std::vector<int64_t> shape) {
  mla_tensor tensor = MLA_TENSOR_INIT;
  tensor.data = memory.data();
  tensor.dtype = MLA_DTYPE_FLOAT32;
  int64_t stride = 1;
  tensor.ndim = static_cast<int32_t>(shape.size());
  for (int32_t i = tensor.ndim - 1; i >= 0; --i) {
    tensor.shape[i] = shape[static_cast<std::size_t>(i)];
    tensor.strides[i] = stride;
    stride *= tensor.shape[i];
  }
  return tensor;
}

void run_for_ever(mla_backend* backend) {
  std::vector<float> rows(4 * 8), result(4 * 8), numbers(4);
  const mla_tensor in = dense(rows, {4, 1, 8}), out = dense(result, {4, 1, 8});
  const mla_tensor lse = dense(numbers, {1, 4});
  mla_new_tokens_args args = MLA_NEW_TOKENS_ARGS_INIT;
  args.q = args.k = args.v = &in;
  args.out = &out;
  args.lse = &lse;
  for (;;) mla_run_prefill_new_tokens(backend, &args);
}

}  // namespace

/// 0 if the threads run.
extern "C" int start_endless_runs() {
  mla_backend_config config = MLA_BACKEND_CONFIG_INIT;
  config.num_heads = 1;
  config.scale = 1;
  config.qk_nope_head_dim = config.v_head_dim = 8;
  mla_backend* backend = nullptr;
  if (mla_backend_create("ZEROS", &config, &backend)) return 1;
  const int32_t query_start_loc[] = {0, 4};
  mla_prefill_metadata metadata = MLA_PREFILL_METADATA_INIT;
  metadata.num_requests = 1;
  metadata.query_start_loc = query_start_loc;
  if (mla_prepare_metadata(backend, &metadata)) return 2;
  for (int i = 0; i < 3; ++i) std::thread(run_for_ever, backend).detach();
  return 0;
}
