// Attention problems and their float64 results.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "array.hpp"
#include "cases.hpp"

namespace test {

struct Model {
  std::int32_t heads = 3, nope = 128, rope = 64, v = 128, rank = 512;

  std::int64_t qk() const { return nope + rope; }

  mla_backend_config config(std::int32_t max_isa = MLA_ISA_DEFAULT) const {
    mla_backend_config made = MLA_BACKEND_CONFIG_INIT;
    describe(made);
    made.max_isa = max_isa;
    return made;
  }

  /// Of a layer with these weights, which must live until it is made.
  mla_layer_config layer_config(const mla_tensor& kv_b_proj) const {
    mla_layer_config made = MLA_LAYER_CONFIG_INIT;
    describe(made);
    made.kv_b_proj = &kv_b_proj;
    return made;
  }

  mla_selector_config selector(std::int32_t dtype = MLA_DTYPE_BFLOAT16) const {
    mla_selector_config made = MLA_SELECTOR_CONFIG_INIT;
    made.dtype = dtype;
    made.qk_nope_head_dim = nope;
    made.qk_rope_head_dim = rope;
    made.v_head_dim = v;
    return made;
  }

 private:
  /// What backends and layers are told alike.
  template <class Config>
  void describe(Config& made) const {
    made.num_heads = heads;
    made.scale = 1.0 / std::sqrt(static_cast<double>(qk()));
    made.kv_lora_rank = rank;
    made.qk_nope_head_dim = nope;
    made.qk_rope_head_dim = rope;
    made.v_head_dim = v;
  }
};

using Offsets = std::vector<std::int32_t>;

/// Offsets of requests of these lengths.
inline Offsets offsets_of(const std::vector<std::int32_t>& lengths) {
  Offsets offsets{0};
  for (std::int32_t length : lengths) offsets.push_back(offsets.back() + length);
  return offsets;
}

/// The tensors of one run: new tokens where kv_loc is q_loc and causal is set,
/// else a context chunk.
struct Attention {
  Attention(const Model& shape, std::int32_t dtype, Offsets q_offsets, Offsets kv_offsets,
            bool is_causal, unsigned seed, std::int64_t padding = 0)
      : model(shape),
        q_loc(std::move(q_offsets)),
        kv_loc(std::move(kv_offsets)),
        causal(is_causal),
        q(dtype, {q_loc.back(), shape.heads, shape.qk()}, padding),
        k(dtype, {kv_loc.back(), shape.heads, shape.qk()}, padding),
        v(dtype, {kv_loc.back(), shape.heads, shape.v}, padding),
        out(dtype, {q_loc.back(), shape.heads, shape.v}, padding),
        lse(MLA_DTYPE_FLOAT32, {shape.heads, q_loc.back()}, padding) {
    std::mt19937 random(seed);
    q.fill(random);
    k.fill(random);
    v.fill(random);
  }

  static Attention new_tokens(const Model& model, std::int32_t dtype,
                              const std::vector<std::int32_t>& lengths, unsigned seed,
                              std::int64_t padding = 0) {
    return {model, dtype, offsets_of(lengths), offsets_of(lengths), true, seed, padding};
  }

  static Attention context(const Model& model, std::int32_t dtype,
                           const std::vector<std::int32_t>& q_lengths,
                           const std::vector<std::int32_t>& kv_lengths, unsigned seed,
                           std::int64_t padding = 0) {
    return {model, dtype, offsets_of(q_lengths), offsets_of(kv_lengths), false, seed, padding};
  }

  mla_context_chunk chunk(std::int32_t index = -1) const {
    mla_context_chunk made = MLA_CONTEXT_CHUNK_INIT;
    made.index = index;
    made.num_requests = static_cast<std::int32_t>(q_loc.size() - 1);
    made.query_start_loc = q_loc.data();
    made.cu_seq_lens = kv_loc.data();
    return made;
  }

  /// Prepares for this run alone, and runs.
  void run(mla::backend& backend) {
    if (causal) {
      backend.prepare_metadata(q_loc);
    } else {
      const mla_context_chunk chunks[] = {chunk(0)};
      backend.prepare_metadata(q_loc, chunks);
    }
    run_prepared(backend);
  }

  void run_prepared(const mla::backend& backend, mla::workspace scratch = {},
                    std::int32_t chunk_index = 0) {
    if (causal) {
      backend.run_prefill_new_tokens(q.view(), k.view(), v.view(), out.view(), &lse.view(),
                                     scratch);
    } else {
      backend.run_prefill_context_chunk(chunk(chunk_index), q.view(), k.view(), v.view(),
                                        out.view(), lse.view(), scratch);
    }
  }

  Model model;
  Offsets q_loc, kv_loc;
  bool causal;
  Array q, k, v, out, lse;
};

/// Largest acceptable errors of one dtype.
struct Bounds {
  double out, lse;

  static Bounds of(std::int32_t dtype) {
    switch (dtype) {
      case MLA_DTYPE_FLOAT32: return {2e-5, 2e-4};
      case MLA_DTYPE_FLOAT16: return {1.5e-3, 2e-4};
      default: return {4e-3, 2e-4};
    }
  }
};

/// Root of sum((a - b)^2) / sum(b^2), collected element by element.
class RelativeError {
 public:
  void add(double got, double expected) {
    difference_ += (got - expected) * (got - expected);
    norm_ += expected * expected;
  }
  double value() const { return std::sqrt(norm_ == 0 ? difference_ : difference_ / norm_); }

 private:
  double difference_ = 0, norm_ = 0;
};

/// What float64 attention gives for one run.
struct Reference {
  std::vector<double> out;  // [rows, heads, v]
  std::vector<double> lse;  // [rows, heads]
};

inline std::vector<double> values_of(const Array& array) {
  std::vector<double> values;
  array.each([&](std::int64_t i, std::int64_t j, std::int64_t k) {
    values.push_back(array.at(i, j, k));
  });
  return values;
}

/// The float64 inputs of a run, and where one row and head of them begins.
struct ReferenceInputs {
  explicit ReferenceInputs(const Attention& a)
      : q(values_of(a.q)),
        k(values_of(a.k)),
        v(values_of(a.v)),
        heads(static_cast<std::size_t>(a.model.heads)),
        qk_dim(static_cast<std::size_t>(a.model.qk())),
        v_dim(static_cast<std::size_t>(a.model.v)),
        scale(a.model.config().scale) {}

  double score(std::size_t row, std::size_t key, std::size_t head) const {
    const double* query = &q[(row * heads + head) * qk_dim];
    const double* other = &k[(key * heads + head) * qk_dim];
    double dot = 0;
    for (std::size_t d = 0; d < qk_dim; ++d) dot += query[d] * other[d];
    return dot * scale;
  }

  /// One row and head against keys [begin, end), appended to `made`.
  void attend(std::size_t row, std::size_t head, std::size_t begin, std::size_t end,
              Reference& made) const {
    std::vector<double> weights(end - begin), out(v_dim);
    double largest = -INFINITY, sum = 0;
    for (std::size_t key = begin; key < end; ++key) {
      weights[key - begin] = score(row, key, head);
      largest = std::max(largest, weights[key - begin]);
    }
    for (double& weight : weights) sum += weight = std::exp(weight - largest);
    for (std::size_t key = begin; key < end; ++key) {
      const double* value = &v[(key * heads + head) * v_dim];
      for (std::size_t d = 0; d < v_dim; ++d) out[d] += weights[key - begin] / sum * value[d];
    }
    made.out.insert(made.out.end(), out.begin(), out.end());
    made.lse.push_back(begin < end ? std::log(sum) + largest : -INFINITY);
  }

  std::vector<double> q, k, v;
  std::size_t heads, qk_dim, v_dim;
  double scale;
};

inline Reference reference_of(const Attention& a) {
  const ReferenceInputs inputs(a);
  Reference made;
  for (std::size_t r = 0; r + 1 < a.q_loc.size(); ++r) {
    const auto begin = static_cast<std::size_t>(a.kv_loc[r]);
    const auto last_row = static_cast<std::size_t>(a.q_loc[r + 1]);
    for (auto row = static_cast<std::size_t>(a.q_loc[r]); row < last_row; ++row) {
      const std::size_t end = a.causal ? row + 1 : static_cast<std::size_t>(a.kv_loc[r + 1]);
      for (std::size_t head = 0; head < inputs.heads; ++head) {
        inputs.attend(row, head, begin, end, made);
      }
    }
  }
  return made;
}

/// Fails unless the results are close to the reference.
inline void expect_close(const Attention& a, const Reference& expected, const std::string& what) {
  // Weights are rounded to the inputs' dtype, results to their own.
  const Bounds bounds = Bounds::of(a.q.view().dtype), rounding = Bounds::of(a.out.view().dtype);
  RelativeError out;
  std::size_t i = 0;
  a.out.each([&](std::int64_t row, std::int64_t head, std::int64_t d) {
    out.add(a.out.at(row, head, d), expected.out[i++]);
  });
  EXPECT(out.value() <= std::max(bounds.out, rounding.out), "%s: out is off by %.2e", what.c_str(), out.value());
  a.lse.each([&](std::int64_t head, std::int64_t row, std::int64_t) {
    const double got = a.lse.at(head, row);
    const double right = expected.lse[static_cast<std::size_t>(row * a.model.heads + head)];
    EXPECT(got == right || std::fabs(got - right) <= bounds.lse, "%s: lse is %g, not %g",
           what.c_str(), got, right);
  });
}

}  // namespace test
