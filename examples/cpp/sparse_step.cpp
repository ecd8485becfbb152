// One step of an engine for a model with DeepSeek Sparse Attention: an indexer chooses topk
// keys for each token, and attention reads no others.
//
//   1. the new tokens' latents and index keys go into the two paged caches, by the same slots
//   2. index_select: of the keys that a token sees, those with the highest scores
//   3. the layer, with these positions
//
// Three requests are served together: a prompt of its own, one that goes on behind 300 tokens,
// and one that is decoding. Where topk covers all that a token sees, the dense layer must give
// the same; of the others the last line tells how far they are from it.
//
// SPDX-License-Identifier: Apache-2.0
#include <mla_prefill.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <random>
#include <vector>

namespace {

constexpr std::int32_t heads = 8, nope = 32, rope = 16, v_dim = 32, rank = 64;
constexpr std::int32_t index_heads = 16, index_dim = 32, topk = 64;
constexpr std::int32_t block_size = 16, max_blocks = 24, num_requests = 3;
constexpr std::int32_t contexts[] = {0, 300, 131}, offsets[] = {0, 40, 52, 53};
constexpr std::int32_t new_tokens = offsets[num_requests];

using Matrix = std::vector<float>;

Matrix numbers(std::int64_t count, std::mt19937& random) {
  std::normal_distribution<float> normal;
  Matrix made(static_cast<std::size_t>(count));
  for (float& number : made) number = normal(random);
  return made;
}

/// The caches of one layer: both are paged by the engine's block table.
class Caches {
 public:
  explicit Caches(std::mt19937& random)
      : latents_(num_requests * max_blocks * block_size * (rank + rope)),
        index_keys_(num_requests * max_blocks * block_size * index_dim),
        table_(num_requests * max_blocks) {
    std::iota(table_.begin(), table_.end(), 0);
    std::shuffle(table_.begin(), table_.end(), random);
  }

  mla::tensor latents() {
    return {latents_.data(), {num_requests * max_blocks, block_size, rank + rope}};
  }
  mla::tensor index_keys() {
    return {index_keys_.data(), {num_requests * max_blocks, block_size, index_dim}};
  }
  const std::int32_t* table() const { return table_.data(); }

  /// Tokens `begin` to before `end` of a request get latents and index keys.
  void store(std::int32_t request, std::int32_t begin, std::int32_t end, std::mt19937& random) {
    std::vector<std::int64_t> slots;
    for (std::int32_t token = begin; token < end; ++token) {
      const std::int32_t entry = request * max_blocks + token / block_size;
      slots.push_back(std::int64_t{table_[static_cast<std::size_t>(entry)]} * block_size +
                      token % block_size);
    }
    const std::int64_t count = end - begin;
    Matrix kv_c = numbers(count * rank, random), k_pe = numbers(count * rope, random);
    Matrix keys = numbers(count * index_dim, random);
    mla::concat_and_cache_mla(mla::tensor(kv_c.data(), {count, rank}),
                              mla::tensor(k_pe.data(), {count, rope}), latents(), slots);
    mla::index_store(mla::tensor(keys.data(), {count, index_dim}), index_keys(), slots);
  }

 private:
  Matrix latents_, index_keys_;
  std::vector<std::int32_t> table_;
};

/// Positions of keys for each new token, `count` of them, -1 behind the last.
std::vector<std::int32_t> select(Caches& caches, std::int32_t count, Matrix& queries,
                                 Matrix& weights) {
  const mla::tensor q(queries.data(), {new_tokens, index_heads, index_dim});
  const mla::tensor w(weights.data(), {new_tokens, index_heads});
  const mla::tensor keys = caches.index_keys();
  std::vector<std::int32_t> chosen(static_cast<std::size_t>(new_tokens * count));
  mla_index_select_args args = MLA_INDEX_SELECT_ARGS_INIT;
  args.num_requests = num_requests;
  args.query_start_loc = offsets;
  args.context_lens = contexts;
  args.q = &q;
  args.weights = &w;
  args.index_cache = &keys;
  args.block_table = caches.table();
  args.block_table_stride = args.max_blocks = max_blocks;
  args.topk_indices = chosen.data();
  args.topk_stride = args.topk = count;
  mla::index_select(args);
  return chosen;
}

/// The layer's output for the new tokens, which are in the cache; of all keys without `chosen`.
Matrix attend(const mla::layer& layer, Caches& caches, Matrix& queries,
              const std::vector<std::int32_t>& chosen) {
  Matrix out(static_cast<std::size_t>(new_tokens * heads * v_dim));
  const mla::tensor q(queries.data(), {new_tokens, heads, nope + rope});
  const mla::tensor result(out.data(), {new_tokens, heads, v_dim}), cache = caches.latents();
  mla_layer_forward_args args = MLA_LAYER_FORWARD_ARGS_INIT;
  args.num_requests = num_requests;
  args.query_start_loc = offsets;
  args.context_lens = contexts;
  args.q = &q;
  args.kv_cache = &cache;
  args.block_table = caches.table();
  args.block_table_stride = args.max_blocks = max_blocks;
  args.out = &result;
  args.new_tokens_cached = 1;
  if (!chosen.empty()) {
    args.topk_indices = chosen.data();
    args.topk_stride = args.topk = static_cast<std::int32_t>(chosen.size()) / new_tokens;
  }
  layer.forward(args);
  return out;
}

mla::layer make_layer(Matrix& weights) {
  const mla::tensor kv_b_proj(weights.data(), {heads * (nope + v_dim), rank});
  mla_layer_config config = MLA_LAYER_CONFIG_INIT;
  config.num_heads = heads;
  config.scale = 1 / std::sqrt(static_cast<double>(nope + rope));
  config.kv_lora_rank = rank;
  config.qk_nope_head_dim = nope;
  config.qk_rope_head_dim = rope;
  config.v_head_dim = v_dim;
  config.kv_b_proj = &kv_b_proj;
  return mla::layer(config);
}

/// The largest difference of two outputs, in tokens that see at most `seen` keys, or in others.
float difference(const Matrix& a, const Matrix& b, std::int32_t seen, bool at_most) {
  float largest = 0;
  for (std::int32_t request = 0; request < num_requests; ++request) {
    for (std::int32_t token = offsets[request]; token < offsets[request + 1]; ++token) {
      const std::int32_t keys = contexts[request] + token - offsets[request] + 1;
      if ((keys <= seen) != at_most) continue;
      for (std::int32_t i = token * heads * v_dim; i < (token + 1) * heads * v_dim; ++i) {
        const auto place = static_cast<std::size_t>(i);
        largest = std::max(largest, std::abs(a[place] - b[place]));
      }
    }
  }
  return largest;
}

}  // namespace

int main() {
  try {
    std::mt19937 random(1);
    Matrix kv_b_proj = numbers(heads * (nope + v_dim) * rank, random);
    for (float& weight : kv_b_proj) weight /= 8;
    const mla::layer layer = make_layer(kv_b_proj);

    // What earlier steps have left, and what this one adds.
    Caches caches(random);
    for (std::int32_t request = 0; request < num_requests; ++request) {
      const std::int32_t count = offsets[request + 1] - offsets[request];
      caches.store(request, 0, contexts[request], random);
      caches.store(request, contexts[request], contexts[request] + count, random);
    }
    Matrix queries = numbers(new_tokens * heads * (nope + rope), random);
    Matrix index_queries = numbers(new_tokens * index_heads * index_dim, random);
    Matrix weights = numbers(new_tokens * index_heads, random);

    const Matrix dense = attend(layer, caches, queries, {});
    const std::int32_t all = max_blocks * block_size;
    const auto best = [&](std::int32_t count) {
      return select(caches, count, index_queries, weights);
    };
    const Matrix sparse = attend(layer, caches, queries, best(topk));
    const Matrix whole = attend(layer, caches, queries, best(all));

    const float covered = difference(sparse, dense, topk, true);
    const float everything = difference(whole, dense, all, true);
    const float left_out = difference(sparse, dense, topk, false);
    std::printf("%d tokens of %d requests, from the dense layer by\n", new_tokens, num_requests);
    std::printf("%.1e where at most %d keys are seen, %.1e with topk %d\n",
                static_cast<double>(covered), topk, static_cast<double>(everything), all);
    std::printf("%.1e where keys are left out\n", static_cast<double>(left_out));
    return covered < 1e-4F && everything < 1e-4F && left_out > 1e-2F ? 0 : 1;
  } catch (const mla::error& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
  }
}
