// A backend of your own, run through the very same calls as the built-in ones.
//
// The class below computes fp32 attention in double, one row at a time: a
// reference rather than a fast kernel. It joins the registry as "REFERENCE", then
// stands in for FLASH_ATTN, so that an engine that asks for FLASH_ATTN gets it
// without a change. Its results are compared with the library's own.
//
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "mla_prefill.hpp"

namespace {

class ReferenceAttention {
 public:
  explicit ReferenceAttention(const mla_backend_config& config) : config_(config) {}

  // --8<-- [start:overview]
  static const char* backend_name() { return "REFERENCE_DOUBLE"; }

  static void validate(const mla_selector_config& config, mla::reasons& reasons) {
    if (config.dtype != MLA_DTYPE_FLOAT32) reasons.add("only float32 is supported");
  }

  /// Copies what it keeps; a run under way keeps the batch it started with.
  void prepare_metadata(const mla_prefill_metadata& metadata) {
    const std::int32_t* offsets = metadata.query_start_loc;
    auto copy = std::make_shared<const Offsets>(offsets, offsets + metadata.num_requests + 1);
    const std::lock_guard<std::mutex> lock(mutex_);
    batch_ = std::move(copy);
  }

  void run_prefill_new_tokens(const mla_new_tokens_args& args) const {
    const std::shared_ptr<const Offsets> batch = prepared();
    for (std::size_t r = 0; r + 1 < batch->size(); ++r) {
      const std::int32_t begin = (*batch)[r], end = (*batch)[r + 1];
      for (std::int32_t token = begin; token < end; ++token) {
        attend(*args.q, *args.k, *args.v, *args.out, args.lse, token, begin, token + 1);
      }
    }
  }
  // --8<-- [end:overview]

  void run_prefill_context_chunk(const mla_context_chunk_args& args) const {
    const mla_context_chunk& chunk = *args.chunk;
    for (std::int32_t r = 0; r < chunk.num_requests; ++r) {
      for (std::int32_t row = chunk.query_start_loc[r]; row < chunk.query_start_loc[r + 1]; ++row) {
        attend(*args.q, *args.k, *args.v, *args.out, args.lse, row, chunk.cu_seq_lens[r],
               chunk.cu_seq_lens[r + 1]);
      }
    }
  }

 private:
  using Offsets = std::vector<std::int32_t>;

  std::shared_ptr<const Offsets> prepared() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!batch_) throw mla::error(MLA_ERROR_INVALID_ARGUMENT, "prepare_metadata: must come first");
    return batch_;
  }

  /// Element 0 of a row of a [tokens, heads, dim] tensor.
  static float* row(const mla_tensor& tensor, std::int64_t token, std::int64_t head) {
    if (tensor.dtype != MLA_DTYPE_FLOAT32) {
      throw mla::error(MLA_ERROR_UNSUPPORTED_CONFIGURATION, "dtype: only float32 is supported");
    }
    return static_cast<float*>(tensor.data) + token * tensor.strides[0] + head * tensor.strides[1];
  }

  /// One row of q against keys [begin, end), all heads.
  void attend(const mla_tensor& q, const mla_tensor& k, const mla_tensor& v, const mla_tensor& out,
              const mla_tensor* lse, std::int64_t token, std::int64_t begin,
              std::int64_t end) const {
    std::vector<double> weights(static_cast<std::size_t>(end - begin));
    for (std::int64_t head = 0; head < q.shape[1]; ++head) {
      const float* query = row(q, token, head);
      double largest = -INFINITY, sum = 0;
      for (std::int64_t key = begin; key < end; ++key) {
        const float* other = row(k, key, head);
        double dot = 0;
        for (std::int64_t d = 0; d < q.shape[2]; ++d) {
          dot += static_cast<double>(query[d]) * static_cast<double>(other[d]);
        }
        weights[static_cast<std::size_t>(key - begin)] = dot * config_.scale;
        largest = std::max(largest, dot * config_.scale);
      }
      for (double& weight : weights) sum += weight = std::exp(weight - largest);
      float* result = row(out, token, head);
      for (std::int64_t d = 0; d < v.shape[2]; ++d) {
        double total = 0;
        for (std::int64_t key = begin; key < end; ++key) {
          total += weights[static_cast<std::size_t>(key - begin)] *
                   static_cast<double>(row(v, key, head)[d]);
        }
        result[d] = begin < end ? static_cast<float>(total / sum) : 0.0F;
      }
      if (lse != nullptr) {
        float* sums = static_cast<float*>(lse->data) + head * lse->strides[0];
        sums[token * lse->strides[1]] = static_cast<float>(std::log(sum) + largest);
      }
    }
  }

  mla_backend_config config_;
  mutable std::mutex mutex_;
  std::shared_ptr<const Offsets> batch_;
};

constexpr std::int32_t num_heads = 4, qk_dim = 96, rope_dim = 32, v_dim = 64;

/// One batch of new tokens, run by whatever stands behind `name`.
std::vector<float> run(const char* name) {
  const std::vector<std::int32_t> query_start_loc{0, 17, 17, 60};
  const std::int64_t tokens = query_start_loc.back();
  std::vector<float> q(static_cast<std::size_t>(tokens * num_heads * qk_dim)), k(q.size()),
      v(static_cast<std::size_t>(tokens * num_heads * v_dim)), out(v.size());
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  for (std::vector<float>* values : {&q, &k, &v}) {
    for (float& value : *values) value = normal(random);
  }

  mla_backend_config config = MLA_BACKEND_CONFIG_INIT;
  config.num_heads = num_heads;
  config.scale = 0.1;
  config.kv_lora_rank = 256;
  config.qk_nope_head_dim = qk_dim - rope_dim;
  config.qk_rope_head_dim = rope_dim;
  config.v_head_dim = v_dim;
  mla::backend backend(name, config);
  backend.prepare_metadata(query_start_loc);
  backend.run_prefill_new_tokens({q.data(), {tokens, num_heads, qk_dim}},
                                 {k.data(), {tokens, num_heads, qk_dim}},
                                 {v.data(), {tokens, num_heads, v_dim}},
                                 {out.data(), {tokens, num_heads, v_dim}});
  return out;
}

double error_of(const std::vector<float>& got, const std::vector<float>& expected) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double a = static_cast<double>(got[i]), b = static_cast<double>(expected[i]);
    difference += (a - b) * (a - b);
    norm += b * b;
  }
  return std::sqrt(difference / norm);
}

/// What the registry says of one member for a model of `dtype`.
void describe(const char* name, std::int32_t dtype) {
  mla_selector_config config = MLA_SELECTOR_CONFIG_INIT;
  config.dtype = dtype;
  config.qk_nope_head_dim = qk_dim - rope_dim;
  config.qk_rope_head_dim = rope_dim;
  config.v_head_dim = v_dim;
  const mla::backend_list list(config);
  for (std::int32_t i = 0; i < list.size(); ++i) {
    const mla_backend_info info = list[i];
    if (std::strcmp(info.name, name) != 0) continue;
    std::printf("  %s is %s%s: %s\n", info.name, info.backend_name,
                info.is_overridden != 0 ? " (overridden)" : "",
                info.is_valid != 0 ? "valid" : info.reasons);
  }
}

int demonstrate() {
  const std::vector<float> own = run("FLASH_ATTN");

  mla::register_backend<ReferenceAttention>("REFERENCE", "example.ReferenceAttention");
  describe("REFERENCE", MLA_DTYPE_FLOAT32);
  describe("REFERENCE", MLA_DTYPE_BFLOAT16);
  const std::vector<float> registered = run("REFERENCE");

  mla::override_backend<ReferenceAttention>("FLASH_ATTN", "example.ReferenceAttention");
  describe("FLASH_ATTN", MLA_DTYPE_FLOAT32);
  const std::vector<float> overriding = run("FLASH_ATTN");
  mla::check(mla_clear_override("FLASH_ATTN"));
  describe("FLASH_ATTN", MLA_DTYPE_FLOAT32);

  const double error = error_of(own, registered);
  std::printf("  the library's FLASH_ATTN against REFERENCE: %.1e\n", error);
  const bool same = registered == overriding && run("FLASH_ATTN") == own;
  return same && error <= 2e-5 ? 0 : 1;
}

}  // namespace

int main() {
  try {
    return demonstrate();
  } catch (const mla::error& failure) {
    std::fprintf(stderr, "%s: %s\n", mla_status_name(failure.status()), failure.what());
    return 1;
  }
}
