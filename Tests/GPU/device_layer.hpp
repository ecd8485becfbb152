// A layer's batch on the host and in memory of the current device.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "device_attention.hpp"

namespace test {

/// Where tokens' latents and rotary parts are kept.
struct LayerCache {
  std::int32_t dtype = MLA_DTYPE_BFLOAT16;
  std::int32_t format = MLA_CACHE_FORMAT_PLAIN;
  float scale = 0;
  std::int64_t block_size = 4;
  /// A tensor of their own for rotary parts.
  bool has_rope_apart = false;
};

/// Requests with tokens in a cache and new ones.
struct LayerProblem {
  using Lengths = std::vector<std::int32_t>;

  LayerProblem(const Model& shape, std::int32_t type, const LayerCache& stored, const Lengths& new_lengths,
               const Lengths& contexts, unsigned seed = 1, std::int64_t padding = 0)
      : model(shape),
        dtype(type),
        kept(stored),
        query_start_loc(offsets_of(new_lengths)),
        context_lens(contexts),
        kv_b_proj(type, {shape.heads * (shape.nope + shape.v), shape.rank}, padding),
        q(type, {query_start_loc.back(), shape.heads, shape.qk()}, padding),
        kv_c_normed(type, {query_start_loc.back(), shape.rank}, padding),
        k_pe(type, {query_start_loc.back(), shape.rope}, padding),
        cache(cache_dtype(), cache_shape(true)),
        rope_cache(cache_dtype(), cache_shape(false)),
        out(type, {query_start_loc.back(), shape.heads, shape.v}, padding),
        lse(MLA_DTYPE_FLOAT32, {shape.heads, query_start_loc.back()}, padding) {
    std::mt19937 random(seed);
    kv_b_proj.fill(random, 0.1);
    for (Array* array : {&q, &kv_c_normed, &k_pe}) array->fill(random);
    fill_cache(random);
  }

  std::int64_t requests() const { return static_cast<std::int64_t>(context_lens.size()); }
  /// Blocks of a request: one of them before its tokens, one behind.
  std::int32_t max_blocks() const {
    const std::int32_t longest = *std::max_element(context_lens.begin(), context_lens.end());
    return static_cast<std::int32_t>(longest / kept.block_size + 2);
  }

  mla_layer_config config(std::int32_t type, const Array& weights) const {
    mla_layer_config made = model.layer_config(weights.view());
    made.dtype = type;
    made.cache_dtype = cache_dtype(), made.cache_scale = kept.scale, made.cache_format = kept.format;
    made.backend = "FLASH_ATTN";
    return made;
  }

  /// All but the tensors.
  mla_layer_forward_args batch() const {
    mla_layer_forward_args args = MLA_LAYER_FORWARD_ARGS_INIT;
    args.num_requests = static_cast<std::int32_t>(requests());
    args.query_start_loc = query_start_loc.data(), args.context_lens = context_lens.data();
    args.block_table = block_table.data(), args.block_table_stride = max_blocks();
    args.max_blocks = max_blocks(), args.context_starts = context_starts.data();
    args.block_table_rows = block_table_rows.data(), args.num_table_rows = requests();
    args.flags = flags;
    if (output_scale > 0) args.output_scale = &output_scale;
    return args;
  }

  /// In fp32 on the CPU, from the same numbers.
  struct Result {
    Array out, lse;
  };
  Result expected() const {
    const Array weights = wide(kv_b_proj), wide_q = wide(q), latents = wide(kv_c_normed), rope = wide(k_pe);
    Result result{Array(MLA_DTYPE_FLOAT32, {q.size(0), model.heads, model.v}),
                  Array(MLA_DTYPE_FLOAT32, {model.heads, q.size(0)})};
    mla_layer_forward_args args = batch();
    args.output_scale = nullptr;
    args.q = &wide_q.view(), args.kv_c_normed = &latents.view(), args.k_pe = &rope.view();
    args.kv_cache = &cache.view();
    if (kept.has_rope_apart) args.k_pe_cache = &rope_cache.view();
    args.out = &result.out.view(), args.lse = &result.lse.view();
    mla::layer(config(MLA_DTYPE_FLOAT32, weights)).forward(args);
    return result;
  }

  void expect_right(const std::string& what) const {
    const Result right = expected();
    RelativeError error;
    out.each([&](std::int64_t row, std::int64_t head, std::int64_t d) {
      double wanted = right.out.at(row, head, d), got = out.at(row, head, d);
      if (output_scale > 0) {
        wanted = std::max(-448.0, std::min(448.0, wanted / static_cast<double>(output_scale)));
        // Codes of fp8 are a sixteenth apart; what is rounded before is as far off as below.
        EXPECT(std::fabs(got - wanted) <= 0.07 * std::fabs(wanted) + 0.06, "%s: %g, not %g", what.c_str(), got, wanted);
        return;
      }
      error.add(got, wanted);
    });
    // Keys and values are rounded before they are looked at.
    const double bound = 2.5 * std::max(Bounds::of(dtype).out, output_scale > 0 ? 1.0 : Bounds::of(out.view().dtype).out);
    EXPECT(error.value() <= bound, "%s: out is off by %.2e", what.c_str(), error.value());
    lse.each([&](std::int64_t head, std::int64_t row, std::int64_t) {
      const double got = lse.at(head, row), wanted = right.lse.at(head, row);
      EXPECT(got == wanted || std::fabs(got - wanted) <= 2e-2, "%s: lse is %g, not %g", what.c_str(), got, wanted);
    });
    EXPECT(out.gaps_are_intact() && lse.gaps_are_intact(), "%s: wrote between rows", what.c_str());
  }

  const Model model;
  const std::int32_t dtype;
  const LayerCache kept;
  Offsets query_start_loc, context_lens, context_starts, block_table_rows, block_table;
  std::uint64_t flags = 0;
  float output_scale = 0;
  Array kv_b_proj, q, kv_c_normed, k_pe, cache, rope_cache, out, lse;

 private:
  std::int32_t cache_dtype() const {
    return kept.format == MLA_CACHE_FORMAT_PLAIN ? kept.dtype : MLA_DTYPE_FLOAT8_E4M3FN;
  }
  std::vector<std::int64_t> cache_shape(bool of_latents) const {
    const std::int64_t blocks = requests() * max_blocks();
    if (kept.format != MLA_CACHE_FORMAT_PLAIN) return {blocks, kept.block_size, of_latents ? 656 : 0};
    if (kept.has_rope_apart) return {blocks, kept.block_size, of_latents ? model.rank : model.rope};
    return {blocks, kept.block_size, of_latents ? model.rank + model.rope : 0};
  }

  static Array wide(const Array& narrow) {
    std::vector<std::int64_t> shape;
    for (int i = 0; i < narrow.view().ndim; ++i) shape.push_back(narrow.size(i));
    Array made(MLA_DTYPE_FLOAT32, shape);
    made.each([&](std::int64_t i, std::int64_t j, std::int64_t k) { made.set(i, j, k, narrow.at(i, j, k)); });
    return made;
  }

  /// Blocks in any order, rows of the table in another than requests', tokens from somewhere in
  /// their first block on.
  void fill_cache(std::mt19937& random) {
    block_table.resize(static_cast<std::size_t>(requests() * max_blocks()));
    for (std::size_t i = 0; i < block_table.size(); ++i) block_table[i] = static_cast<std::int32_t>(i);
    std::shuffle(block_table.begin(), block_table.end(), random);
    for (std::int64_t i = 0; i < requests(); ++i) {
      block_table_rows.push_back(static_cast<std::int32_t>(requests() - 1 - i));
      context_starts.push_back(static_cast<std::int32_t>(random() % static_cast<unsigned>(kept.block_size)));
    }
    std::vector<std::int64_t> slots;
    for (std::size_t i = 0; i < context_lens.size(); ++i) {
      for (std::int32_t t = 0; t < context_lens[i]; ++t) {
        const std::int64_t place = context_starts[i] + t, row = block_table_rows[i];
        const auto entry = static_cast<std::size_t>(row * max_blocks() + place / kept.block_size);
        slots.push_back(block_table[entry] * kept.block_size + place % kept.block_size);
      }
    }
    const auto tokens = static_cast<std::int64_t>(slots.size());
    Array latents(dtype, {tokens, model.rank}), rope(dtype, {tokens, model.rope});
    latents.fill(random), rope.fill(random);
    mla::concat_and_cache_mla(latents.view(), rope.view(), cache.view(), slots, kept.scale, kept.format,
                              kept.has_rope_apart ? &rope_cache.view() : nullptr);
  }
};

/// A problem's tensors on the current device, and a layer there.
class DeviceLayer {
 public:
  explicit DeviceLayer(LayerProblem& host, CUdevice device = 0, std::int64_t workspace_bound = 0,
                       const char* backend = "FLASH_ATTN", std::size_t shift = 0)
      : q(host.q, device, shift),
        kv_c_normed(host.kv_c_normed, device, shift),
        k_pe(host.k_pe, device, shift),
        cache(host.cache, device),
        rope_cache(host.rope_cache, device),
        out(host.out, device, shift % element_size(host.out.view().dtype)),
        lse(host.lse, device, shift / 4 * 4),
        table(host.block_table.size() * 4),
        host_(host),
        layer_(make(host, device, workspace_bound, backend)) {}

  const mla::layer& layer() const { return layer_; }

  void upload(CUstream stream) const {
    q.upload(host_.q, stream), kv_c_normed.upload(host_.kv_c_normed, stream), k_pe.upload(host_.k_pe, stream);
    cache.upload(host_.cache, stream), rope_cache.upload(host_.rope_cache, stream);
    out.upload(host_.out, stream), lse.upload(host_.lse, stream);
    DRIVER(cuMemcpyHtoDAsync_v2(table.address(), host_.block_table.data(), host_.block_table.size() * 4, stream));
  }
  void download(CUstream stream) const { out.download(host_.out, stream), lse.download(host_.lse, stream); }

  mla_layer_forward_args args(CUstream stream) const {
    mla_layer_forward_args made = host_.batch();
    made.q = &q.view(), made.kv_c_normed = &kv_c_normed.view(), made.k_pe = &k_pe.view();
    made.kv_cache = &cache.view();
    if (host_.kept.has_rope_apart) made.k_pe_cache = &rope_cache.view();
    made.block_table = table.pointer<std::int32_t>();
    made.out = &out.view(), made.lse = &lse.view();
    made.stream = stream;
    return made;
  }

  void run(CUstream stream) const {
    upload(stream);
    layer_.forward(args(stream));
    download(stream);
  }

  DeviceArray q, kv_c_normed, k_pe, cache, rope_cache, out, lse;
  DeviceBytes table;

 private:
  static mla::layer make(const LayerProblem& host, CUdevice device, std::int64_t bound, const char* backend) {
    const Stream stream;
    const DeviceArray weights(host.kv_b_proj, device, 2);
    weights.upload(host.kv_b_proj, stream);
    stream.synchronize();
    mla_layer_config config = host.config(host.dtype, host.kv_b_proj);
    config.kv_b_proj = &weights.view();
    config.device_type = MLA_DEVICE_CUDA, config.device_id = device;
    config.workspace_bound = bound, config.backend = backend;
    return mla::layer(config);
  }

  LayerProblem& host_;
  mla::layer layer_;
};

}  // namespace test
