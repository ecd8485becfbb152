// Attention in one call from C++: a step of decoding by a batch whose tensors lie as a
// framework has them.
//
//   q       [batch, heads, 1, dim], a transposed view of [batch, 1, heads, dim]
//   k, v    [batch, kv_heads, capacity, dim], static caches that are not full: k_count says
//           how many tokens each sequence has
//
// The same sequences one by one, in tensors of three dimensions, have the same bits.
//
// SPDX-License-Identifier: Apache-2.0
#include <mla_prefill.hpp>

#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

namespace {

constexpr std::int64_t batch = 4, heads = 16, kv_heads = 4, dim = 128, capacity = 512;

std::vector<float> numbers(std::int64_t count, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<float> made(static_cast<std::size_t>(count));
  for (float& number : made) number = normal(random);
  return made;
}

}  // namespace

int main() {
  std::mt19937 random(1);
  std::vector<float> q = numbers(batch * heads * dim, random);
  std::vector<float> k = numbers(batch * kv_heads * capacity * dim, random);
  std::vector<float> v = numbers(batch * kv_heads * capacity * dim, random);
  std::vector<float> out(q.size()), alone(q.size());
  const std::int32_t k_count[] = {512, 17, 1, 300};
  const double scale = 1 / std::sqrt(static_cast<double>(dim));

  try {
    const mla::tensor queries(q.data(), {batch, heads, 1, dim}, {heads * dim, dim, heads * dim, 1});
    const mla::tensor results(out.data(), {batch, heads, 1, dim}, {heads * dim, dim, heads * dim, 1});
    const mla::tensor keys(k.data(), {batch, kv_heads, capacity, dim});
    const mla::tensor values(v.data(), {batch, kv_heads, capacity, dim});
    mla_attention_args args = MLA_ATTENTION_ARGS_INIT;
    args.q = &queries, args.k = &keys, args.v = &values, args.out = &results;
    args.scale = scale;
    args.causal = MLA_CAUSAL_END;
    args.k_count = k_count;
    mla::attention(args);

    for (std::int64_t b = 0; b < batch; ++b) {
      const std::int64_t row = b * heads * dim, cache = b * kv_heads * capacity * dim;
      // [tokens, kv_heads, dim] over the same memory.
      const auto tokens = [&](std::vector<float>& memory) {
        return mla::tensor(memory.data() + cache, {k_count[b], kv_heads, dim}, {dim, capacity * dim, 1});
      };
      mla::attention(mla::tensor(q.data() + row, {1, heads, dim}), tokens(k), tokens(v),
                     mla::tensor(alone.data() + row, {1, heads, dim}), scale, MLA_CAUSAL_END);
    }
  } catch (const mla::error& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
  }
  std::printf("%d sequences at once and one by one: %s bits\n", static_cast<int>(batch),
              out == alone ? "the same" : "other");
  return out == alone ? 0 : 1;
}
