// A decoder of MLA layers with random weights: small, but every part is there.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <random>

#include "mla_prefill.hpp"
#include "paged_cache.hpp"

using Matrix = std::vector<float>;

struct Dimensions {
  static constexpr std::int32_t model = 64, heads = 4, nope = 32, rope = 16, v = 32, rank = 64;
  static constexpr std::int32_t qk = nope + rope, vocabulary = 256, layers = 2;
};

/// x [rows, in] times w^T, w [out, in].
inline Matrix linear(const Matrix& x, const Matrix& w, std::size_t in) {
  const std::size_t rows = x.size() / in, out = w.size() / in;
  Matrix y(rows * out);
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t o = 0; o < out; ++o) {
      float sum = 0;
      for (std::size_t i = 0; i < in; ++i) sum += x[r * in + i] * w[o * in + i];
      y[r * out + o] = sum;
    }
  }
  return y;
}

/// Rows of unit mean square.
inline Matrix normed(Matrix x, std::size_t dim) {
  for (std::size_t first = 0; first < x.size(); first += dim) {
    float square = 1e-6F;
    for (std::size_t i = 0; i < dim; ++i) square += x[first + i] * x[first + i];
    const float factor = std::sqrt(static_cast<float>(dim) / square);
    for (std::size_t i = 0; i < dim; ++i) x[first + i] *= factor;
  }
  return x;
}

/// Rotates pairs of the `count` elements at `x` by the token's position.
inline void apply_rope(float* x, std::size_t count, std::int32_t position) {
  for (std::size_t i = 0; i < count; i += 2) {
    const double frequency = std::pow(1e4, -static_cast<double>(i) / static_cast<double>(count));
    const double angle = position * frequency;
    const auto c = static_cast<float>(std::cos(angle)), s = static_cast<float>(std::sin(angle));
    const float a = x[i], b = x[i + 1];
    x[i] = a * c - b * s;
    x[i + 1] = a * s + b * c;
  }
}

/// The rows of a step's tokens in all requests that it serves.
struct Step {
  std::vector<std::int32_t> query_start_loc{0}, context_lens, block_table, positions;
  std::vector<std::int64_t> slots;
  Tokens tokens;
  std::int32_t max_blocks = 0;
};

class DecoderLayer {
  using D = Dimensions;

 public:
  DecoderLayer(std::int32_t num_blocks, std::int32_t block_size, std::mt19937& random)
      : q_proj_(weights(D::heads * D::qk, D::model, random)),
        kv_a_proj_(weights(D::rank + D::rope, D::model, random)),
        kv_b_proj_(weights(D::heads * (D::nope + D::v), D::rank, random)),
        o_proj_(weights(D::model, D::heads * D::v, random)),
        cache_(static_cast<std::size_t>(num_blocks * block_size * (D::rank + D::rope))),
        cache_view_(cache_.data(), {num_blocks, block_size, D::rank + D::rope}),
        attention_(config({kv_b_proj_.data(), {D::heads * (D::nope + D::v), D::rank}})) {}

  static Matrix weights(std::int32_t out, std::int32_t in, std::mt19937& random) {
    std::normal_distribution<float> normal(0, 1 / std::sqrt(static_cast<float>(in)));
    Matrix made(static_cast<std::size_t>(out) * static_cast<std::size_t>(in));
    for (float& weight : made) weight = normal(random);
    return made;
  }

  /// Adds attention to the rows of `x` and caches their latents.
  void forward(Matrix& x, const Step& step) {
    const Matrix h = normed(x, D::model);
    const auto rows = static_cast<std::int64_t>(step.tokens.size());
    Matrix q = linear(h, q_proj_, D::model);
    Matrix latents, k_pe;
    split(linear(h, kv_a_proj_, D::model), latents, k_pe);
    latents = normed(std::move(latents), D::rank);
    for (std::size_t r = 0; r < step.positions.size(); ++r) {
      apply_rope(&k_pe[r * D::rope], D::rope, step.positions[r]);
      for (std::size_t head = 0; head < D::heads; ++head) {
        apply_rope(&q[(r * D::heads + head) * D::qk + D::nope], D::rope, step.positions[r]);
      }
    }

    const mla::tensor q_view(q.data(), {rows, D::heads, D::qk});
    const mla::tensor latents_view(latents.data(), {rows, D::rank});
    const mla::tensor k_pe_view(k_pe.data(), {rows, D::rope});
    Matrix out(static_cast<std::size_t>(rows) * D::heads * D::v);
    const mla::tensor out_view(out.data(), {rows, D::heads, D::v});
    mla_layer_forward_args args = MLA_LAYER_FORWARD_ARGS_INIT;
    args.num_requests = static_cast<std::int32_t>(step.context_lens.size());
    args.query_start_loc = step.query_start_loc.data();
    args.context_lens = step.context_lens.data();
    args.q = &q_view;
    args.kv_c_normed = &latents_view;
    args.k_pe = &k_pe_view;
    args.kv_cache = &cache_view_;
    args.block_table = step.block_table.data();
    args.block_table_stride = args.max_blocks = step.max_blocks;
    args.out = &out_view;
    attention_.forward(args);
    mla::concat_and_cache_mla(latents_view, k_pe_view, cache_view_, step.slots);

    const Matrix added = linear(out, o_proj_, D::heads * D::v);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] += added[i];
  }

 private:
  static mla_layer_config config(const mla::tensor& kv_b_proj) {
    mla_layer_config made = MLA_LAYER_CONFIG_INIT;
    made.num_heads = D::heads;
    made.scale = 1 / std::sqrt(static_cast<double>(D::qk));
    made.kv_lora_rank = D::rank;
    made.qk_nope_head_dim = D::nope;
    made.qk_rope_head_dim = D::rope;
    made.v_head_dim = D::v;
    made.kv_b_proj = &kv_b_proj;
    made.workspace_bound = 8 << 20;
    return made;
  }

  /// Rows of [rank + rope] into latents and rotary parts.
  static void split(const Matrix& rows, Matrix& latents, Matrix& k_pe) {
    for (auto row = rows.begin(); row != rows.end(); row += D::rank + D::rope) {
      latents.insert(latents.end(), row, row + D::rank);
      k_pe.insert(k_pe.end(), row + D::rank, row + D::rank + D::rope);
    }
  }

  Matrix q_proj_, kv_a_proj_, kv_b_proj_, o_proj_, cache_;
  mla::tensor cache_view_;
  mla::layer attention_;
};
