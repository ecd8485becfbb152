// Tensors that lie among each other in one buffer and share no byte: taken, with the
// bits of separate ones; those that share a single element: refused.
//
// SPDX-License-Identifier: Apache-2.0
#include "support.hpp"

namespace {

const test::Model model{3, 16, 8, 16, 32};
constexpr std::int64_t tokens = 50;

/// Columns of one fp32 buffer, a row for each token.
class Buffer {
 public:
  explicit Buffer(std::int64_t width)
      : width_(width), memory_(static_cast<std::size_t>(tokens * width)) {}

  float* column(std::int64_t first) { return memory_.data() + first; }

  /// [tokens, heads, dim] at the columns from `first` on, heads `head_stride` apart.
  mla::tensor view(std::int64_t first, std::int64_t dim, std::int64_t head_stride) {
    mla::tensor made(column(first), {tokens, model.heads, dim});
    made.strides[0] = width_;
    made.strides[1] = head_stride;
    return made;
  }

  /// [tokens, dim].
  mla::tensor rows(std::int64_t first, std::int64_t dim) {
    mla::tensor made(column(first), {tokens, dim});
    made.strides[0] = width_;
    return made;
  }

  void fill(const mla::tensor& view, const test::Array& values) {
    values.each([&](std::int64_t i, std::int64_t j, std::int64_t k) {
      static_cast<float*>(view.data)[i * view.strides[0] + j * view.strides[1] + k] =
          static_cast<float>(values.at(i, j, k));
    });
  }

  void expect_bits(const mla::tensor& view, const test::Array& values, const char* what) {
    values.each([&](std::int64_t i, std::int64_t j, std::int64_t k) {
      const float got = static_cast<float*>(
          view.data)[i * view.strides[0] + j * view.strides[1] + k];
      EXPECT(static_cast<double>(got) == values.at(i, j, k), "%s: %g instead of %g", what,
             static_cast<double>(got), values.at(i, j, k));
    });
  }

 private:
  std::int64_t width_;
  std::vector<float> memory_;
};

template <class Call>
void expect_refused(Call call, const char* what) {
  try {
    call();
  } catch (const mla::error& refused) {
    EXPECT(refused.status() == MLA_ERROR_INVALID_ARGUMENT &&
               std::strstr(refused.what(), "overlap") != nullptr,
           "%s: %s", what, refused.what());
    return;
  }
  test::fail("%s is accepted", what);
}

test::Attention separate() {
  auto step = test::Attention::new_tokens(model, MLA_DTYPE_FLOAT32, {20, 30}, 1);
  mla::backend backend("CPU", model.config());
  step.run(backend);
  return step;
}

/// q, k, v, out of a head beside each other, then those of the next head.
void columns_of_heads() {
  const test::Attention apart = separate();
  const std::int64_t qk = model.qk(), v = model.v, head = 2 * qk + 2 * v;
  Buffer buffer(model.heads * head);
  const mla::tensor q = buffer.view(0, qk, head), k = buffer.view(qk, qk, head),
                    values = buffer.view(2 * qk, v, head), out = buffer.view(2 * qk + v, v, head);
  buffer.fill(q, apart.q);
  buffer.fill(k, apart.k);
  buffer.fill(values, apart.v);
  mla::backend backend("CPU", model.config());
  backend.prepare_metadata(apart.q_loc);
  backend.run_prefill_new_tokens(q, k, values, out);
  buffer.expect_bits(out, apart.out, "out");
  mla::tensor near = out;
  near.data = static_cast<float*>(out.data) - 1;
  expect_refused([&] { backend.run_prefill_new_tokens(q, k, values, near); },
                 "an out that begins with the last element of v");
}

/// All heads of a side beside all heads of the other, the result behind them.
void columns_of_a_merge() {
  const std::int64_t v = model.v, side = model.heads * v;
  std::mt19937 random(2);
  test::Array prefix(MLA_DTYPE_FLOAT32, {tokens, model.heads, v}), suffix = prefix, out = prefix;
  test::Array prefix_lse(MLA_DTYPE_FLOAT32, {model.heads, tokens}), suffix_lse = prefix_lse;
  for (test::Array* input : {&prefix, &suffix, &prefix_lse, &suffix_lse}) input->fill(random);
  mla::merge_attn_states(out.view(), nullptr, prefix.view(), prefix_lse.view(), suffix.view(),
                         suffix_lse.view());
  Buffer buffer(3 * side);
  const mla::tensor one = buffer.view(0, v, v), other = buffer.view(side, v, v);
  mla::tensor merged = buffer.view(2 * side, v, v);
  buffer.fill(one, prefix);
  buffer.fill(other, suffix);
  const auto merge = [&] {
    mla::merge_attn_states(merged, nullptr, one, prefix_lse.view(), other, suffix_lse.view());
  };
  merge();
  buffer.expect_bits(merged, out, "output");
  merged.data = buffer.column(2 * side - 1);
  expect_refused(merge, "an output that begins with the last element of a side");
}

/// What a layer reads and writes, and a workspace in front of it all.
void columns_of_a_layer() {
  const std::int64_t qk = model.qk(), v = model.v, heads = model.heads, rank = model.rank;
  std::mt19937 random(3);
  test::Array weights(MLA_DTYPE_FLOAT32, {heads * (model.nope + v), rank});
  test::Array q(MLA_DTYPE_FLOAT32, {tokens, heads, qk}), out(MLA_DTYPE_FLOAT32, {tokens, heads, v});
  test::Array latents(MLA_DTYPE_FLOAT32, {tokens, 1, rank}), k_pe(MLA_DTYPE_FLOAT32, {tokens, 1, model.rope});
  for (test::Array* input : {&weights, &q, &latents, &k_pe}) input->fill(random, 0.3);
  const mla::layer layer(model.layer_config(weights.view()));

  Buffer buffer(heads * qk + rank + model.rope + heads * v);
  const std::int64_t rope_begin = heads * qk + rank, out_begin = rope_begin + model.rope;
  mla::tensor view[] = {buffer.view(0, qk, qk), buffer.rows(heads * qk, rank),
                        buffer.rows(rope_begin, model.rope), buffer.view(out_begin, v, v)};
  const test::Offsets q_loc{0, 20, 50};
  mla_layer_forward_args args = MLA_LAYER_FORWARD_ARGS_INIT;
  args.num_requests = 2;
  args.query_start_loc = q_loc.data();
  const mla::tensor flat_latents(static_cast<float*>(latents.view().data), {tokens, rank}),
      flat_k_pe(static_cast<float*>(k_pe.view().data), {tokens, model.rope});
  args.q = &q.view(), args.kv_c_normed = &flat_latents, args.k_pe = &flat_k_pe, args.out = &out.view();
  layer.forward(args);

  buffer.fill(view[0], q);
  buffer.fill(buffer.view(heads * qk, rank, 0).narrow(1, 0, 1), latents);
  buffer.fill(buffer.view(rope_begin, model.rope, 0).narrow(1, 0, 1), k_pe);
  args.q = &view[0], args.kv_c_normed = &view[1], args.k_pe = &view[2], args.out = &view[3];
  layer.forward(args);
  buffer.expect_bits(view[3], out, "out");
  view[3].data = buffer.column(out_begin - 1);
  expect_refused([&] { layer.forward(args); }, "an out that begins with the last element of k_pe");
}

/// New latents beside the cache's slots that they go to.
void columns_of_a_cache() {
  const std::int64_t rank = model.rank;
  Buffer buffer(2 * rank);
  const mla::tensor latents = buffer.rows(0, rank);
  mla::tensor cache(buffer.column(rank), {tokens / 10, 10, rank});
  cache.strides[0] = 10 * 2 * rank;
  cache.strides[1] = 2 * rank;
  std::vector<std::int64_t> slots;
  for (std::int64_t token = 0; token < tokens; ++token) {
    slots.push_back(tokens - 1 - token);
    for (std::int64_t i = 0; i < rank; ++i) {
      buffer.column(token * 2 * rank)[i] = static_cast<float>(token * rank + i);
    }
  }
  const auto put = [&] {
    mla_concat_and_cache_args args = MLA_CONCAT_AND_CACHE_ARGS_INIT;
    args.kv_c_normed = &latents;
    args.kv_cache = &cache;
    args.slot_mapping = slots.data();
    args.num_slots = tokens;
    mla::check(mla_concat_and_cache_mla(&args));
  };
  put();
  for (std::int64_t token = 0; token < tokens; ++token) {
    for (std::int64_t i = 0; i < rank; ++i) {
      CHECK(buffer.column(slots[static_cast<std::size_t>(token)] * 2 * rank + rank)[i] ==
            static_cast<float>(token * rank + i));
    }
  }
  cache.data = buffer.column(rank - 1);
  expect_refused(put, "a cache that begins with the last element of a latent");
}

}  // namespace

int main(int argc, char** argv) {
  return test::run(argc, argv,
                   {{"interleaved columns of heads", columns_of_heads},
                    {"interleaved columns of a merge", columns_of_a_merge},
                    {"interleaved columns of a layer", columns_of_a_layer},
                    {"interleaved columns of a cache", columns_of_a_cache}});
}
