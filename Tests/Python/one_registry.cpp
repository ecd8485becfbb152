// Half of the tests of one registry: a backend in C++ that Python runs, and C++
// code that runs backends of Python's.
//
// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "mla_prefill.hpp"

namespace {

std::atomic<bool> released{false};

/// Not attention: out is v times two, lse the number of the token. What runs can
/// be told apart from anything else by that.
class Doubling {
 public:
  explicit Doubling(const mla_backend_config&) {}

  static const char* backend_name() { return "DOUBLING"; }

  static void validate(const mla_selector_config& config, mla::reasons& reasons) {
    if (config.dtype != MLA_DTYPE_FLOAT32) reasons.add("only float32 is supported");
  }

  void run_prefill_new_tokens(const mla_new_tokens_args& args) const {
    double_rows(*args.v, *args.out);
    if (args.lse) number_tokens(*args.lse);
  }

  void run_prefill_context_chunk(const mla_context_chunk_args& args) const {
    throw mla::error(MLA_ERROR_UNSUPPORTED_CONFIGURATION, "DOUBLING: knows no context");
  }

 private:
  static void double_rows(const mla_tensor& from, const mla_tensor& to) {
    for (std::int64_t t = 0; t < to.shape[0]; ++t) {
      for (std::int64_t h = 0; h < to.shape[1]; ++h) {
        for (std::int64_t d = 0; d < to.shape[2]; ++d) {
          at(to, t, h)[d] = 2 * at(from, t, h)[d];
        }
      }
    }
  }

  static void number_tokens(const mla_tensor& lse) {
    for (std::int64_t h = 0; h < lse.shape[0]; ++h) {
      for (std::int64_t t = 0; t < lse.shape[1]; ++t) at(lse, h, t)[0] = static_cast<float>(t);
    }
  }

  static float* at(const mla_tensor& tensor, std::int64_t i, std::int64_t j) {
    return static_cast<float*>(tensor.data) + i * tensor.strides[0] + j * tensor.strides[1];
  }
};

/// Its runs wait until another thread of Python's has called release().
class Waiting : public Doubling {
 public:
  using Doubling::Doubling;

  void run_prefill_new_tokens(const mla_new_tokens_args& args) const {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (!released.load()) {
      if (std::chrono::steady_clock::now() > end) {
        throw mla::error(MLA_ERROR_INTERNAL, "nobody else could run: the GIL was held");
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    Doubling::run_prefill_new_tokens(args);
  }
};

/// Of the last run on a device: where q, k, v, out and lse are, and what the run had beside.
struct Placement {
  std::int32_t device_type, device_id;
  const void *data[5];
  const void *stream;
};
Placement placement;

/// Runs on CUDA device 1: notes what it gets.
class Placed {
 public:
  explicit Placed(const mla_backend_config&) {}
  static bool supports_device(std::int32_t type, std::int32_t id) {
    return type == MLA_DEVICE_CUDA && id == 1;
  }
  void run_prefill_new_tokens(const mla_new_tokens_args& args) const { note(args); }
  void run_prefill_context_chunk(const mla_context_chunk_args& args) const { note(args); }

 private:
  template <class Args>
  static void note(const Args& args) {
    placement = {args.q->device_type, args.q->device_id, {}, args.stream};
    const mla_tensor* const tensors[] = {args.q, args.k, args.v, args.out, args.lse};
    for (int i = 0; i < 5; ++i) placement.data[i] = tensors[i] ? tensors[i]->data : nullptr;
  }
};

std::string message;

}  // namespace

extern "C" {

void register_doubling(const char* name) { mla::register_backend<Doubling>(name); }
void override_with_doubling(const char* name) { mla::override_backend<Doubling>(name); }
void register_waiting(const char* name) {
  released = false;
  mla::register_backend<Waiting>(name);
}
void release() { released = true; }
void register_placed(const char* name) { mla::register_backend<Placed>(name); }
const Placement* last_placement() { return &placement; }

/// Runs new tokens and a chunk, of 3 rows of 1 head with dimensions 2 + 0 / 2, on CUDA device
/// 1: tensors one page behind the other from `base` on, stream 0x1234. Returns as run_backend().
int run_on_device(const char* name, std::uintptr_t base) {
  message.clear();
  const auto at = [&](std::uintptr_t page) { return reinterpret_cast<float*>(base + 4096 * page); };
  const auto rows = [&](std::uintptr_t page) {
    return mla::tensor(at(page), {3, 1, 2}).on(MLA_DEVICE_CUDA, 1);
  };
  const mla::tensor lse = mla::tensor(at(4), {1, 3}).on(MLA_DEVICE_CUDA, 1);
  try {
    mla_backend_config config = MLA_BACKEND_CONFIG_INIT;
    config.num_heads = 1;
    config.scale = 1;
    config.qk_nope_head_dim = config.v_head_dim = 2;
    config.device_type = MLA_DEVICE_CUDA;
    config.device_id = 1;
    mla::backend backend(name, config);
    const std::int32_t offsets[] = {0, 3};
    backend.prepare_metadata(offsets);
    void* const stream = reinterpret_cast<void*>(0x1234);
    backend.run_prefill_new_tokens(rows(0), rows(1), rows(2), rows(3), &lse, {}, stream);
    mla_context_chunk chunk = MLA_CONTEXT_CHUNK_INIT;
    chunk.num_requests = 1;
    chunk.query_start_loc = chunk.cu_seq_lens = offsets;
    backend.run_prefill_context_chunk(chunk, rows(0), rows(1), rows(2), rows(3), lse, {}, stream);
  } catch (const mla::error& error) {
    message = error.what();
    return error.status();
  }
  return 0;
}

/// Runs new tokens of two requests (3 and 2 rows, 1 head, dimensions 2 + 0 / 2) on
/// `threads` threads; q and k are 0, so that out is the mean of v so far. 0 where
/// all results are that, the status of the first failing call otherwise; then
/// last_message() says why. -1: a wrong result.
int run_backend(const char* name, int threads) {
  message.clear();
  std::vector<int> results(static_cast<std::size_t>(threads), 0);
  std::vector<std::string> messages(results.size());
  try {
    mla_backend_config config = MLA_BACKEND_CONFIG_INIT;
    config.num_heads = 1;
    config.scale = 1;
    config.qk_nope_head_dim = 2;
    config.v_head_dim = 2;
    mla::backend backend(name, config);
    const std::int32_t offsets[] = {0, 3, 5};
    backend.prepare_metadata(offsets);
    const auto work = [&](std::size_t thread) {
      float zero[10] = {}, v[10] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, out[10] = {}, lse[5] = {};
      const float expected[] = {1, 2, 2, 3, 3, 4, 7, 8, 8, 9};
      const float counts[] = {1, 2, 3, 1, 2};
      try {
        const mla::tensor lse_view(lse, {1, 5});
        backend.run_prefill_new_tokens(mla::tensor(zero, {5, 1, 2}), mla::tensor(zero, {5, 1, 2}),
                                       mla::tensor(v, {5, 1, 2}), mla::tensor(out, {5, 1, 2}),
                                       &lse_view);
      } catch (const mla::error& error) {
        results[thread] = error.status();
        messages[thread] = error.what();
        return;
      }
      for (int i = 0; i < 10; ++i) {
        if (std::fabs(out[i] - expected[i]) > 1e-5f) results[thread] = -1;
      }
      for (int i = 0; i < 5; ++i) {
        if (std::fabs(lse[i] - std::log(counts[i])) > 1e-5f) results[thread] = -1;
      }
    };
    std::vector<std::thread> pool;
    for (std::size_t i = 1; i < results.size(); ++i) pool.emplace_back(work, i);
    work(0);
    for (std::thread& thread : pool) thread.join();
  } catch (const mla::error& error) {
    message = error.what();
    return error.status();
  }
  for (std::size_t i = 0; i < results.size(); ++i) {
    if (results[i] == 0) continue;
    message = messages[i];
    return results[i];
  }
  return 0;
}

/// A layer of one head (rank 2, dimensions 2 + 0 / 2) whose values are the latents
/// and whose keys are 0: out is the mean of the latents so far. Two requests, of 2
/// new tokens after 3 in the cache, and of 1 new token. Returns as run_backend().
int run_layer(const char* name) {
  message.clear();
  float weights[] = {0, 0, 0, 0, 1, 0, 0, 1}, zero[6] = {}, latents[] = {7, 8, 9, 10, 3, 4};
  float cached[] = {1, 2, 3, 4, 5, 6}, out[6] = {}, lse[3] = {};
  const float expected[] = {4, 5, 5, 6, 3, 4}, counts[] = {4, 5, 1};
  const std::int32_t offsets[] = {0, 2, 3}, context_lens[] = {3, 0}, block_table[] = {0, 0};
  try {
    const mla::tensor kv_b_proj(weights, {4, 2}), q(zero, {3, 1, 2}), kv_c_normed(latents, {3, 2});
    const mla::tensor cache(cached, {1, 3, 2}), result(out, {3, 1, 2}), lse_view(lse, {1, 3});
    mla_layer_config config = MLA_LAYER_CONFIG_INIT;
    config.num_heads = 1, config.scale = 1, config.kv_lora_rank = 2;
    config.qk_nope_head_dim = config.v_head_dim = 2;
    config.backend = name, config.kv_b_proj = &kv_b_proj;
    const mla::layer layer(config);
    mla_layer_forward_args args = MLA_LAYER_FORWARD_ARGS_INIT;
    args.num_requests = 2, args.query_start_loc = offsets, args.context_lens = context_lens;
    args.q = &q, args.kv_c_normed = &kv_c_normed, args.kv_cache = &cache;
    args.block_table = block_table, args.block_table_stride = args.max_blocks = 1;
    args.out = &result, args.lse = &lse_view;
    layer.forward(args);
  } catch (const mla::error& error) {
    message = error.what();
    return error.status();
  }
  for (int i = 0; i < 6; ++i) {
    if (!(std::fabs(out[i] - expected[i]) <= 1e-5f)) return -1;
  }
  for (int i = 0; i < 3; ++i) {
    if (!(std::fabs(lse[i] - std::log(counts[i])) <= 1e-5f)) return -1;
  }
  return 0;
}

const char* last_message() { return message.c_str(); }

}  // extern "C"
