// Well-formed calls of the whole layer, for rules to break.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tensors.hpp"

namespace malformed {

constexpr mla_status invalid = MLA_ERROR_INVALID_ARGUMENT;
constexpr std::int64_t tokens = 6, blocks = 5, block_size = 4, table_width = 3;

inline float wrong_scale(Random& random) {
  return random.any_of<float>({0.0F, -1.0F, INFINITY, -INFINITY, NAN});
}

struct LayerCreate {
  LayerCreate(const test::Model& model, std::int32_t weights_dtype)
      : weights(weights_dtype, {model.heads * (model.nope + model.v), model.rank}),
        config(model.layer_config(weights.view.value)) {
    weights.fill();
  }

  mla_status invoke() {
    const mla_status status = mla_layer_create(pointer, place);
    if (status == MLA_OK) mla_layer_destroy(layer);
    return status;
  }
  bool untouched() const { return weights.untouched() && layer == canary<mla_layer>(); }

  Operand weights;
  Padded<mla_layer_config> config;
  const mla_layer_config* pointer = &config.value;
  mla_layer* layer = canary<mla_layer>();
  mla_layer** place = &layer;
};

/// A layer as `Create` describes it, shared by all calls.
template <class Create>
mla_layer* created() {
  static mla::layer* const layer = [] { return new mla::layer(Create().config.value); }();
  return layer->get();
}

/// Two requests with context, in a cache of fp8 of that shape.
struct LayerForward {
  LayerForward(mla_layer* of_layer, const test::Model& model, std::vector<std::int64_t> cache)
      : q(MLA_DTYPE_BFLOAT16, {tokens, model.heads, model.qk()}),
        kv_c_normed(MLA_DTYPE_BFLOAT16, {tokens, model.rank}),
        k_pe(MLA_DTYPE_BFLOAT16, {tokens, model.rope}),
        kv_cache(MLA_DTYPE_FLOAT8_E4M3FN, std::move(cache)),
        out(MLA_DTYPE_BFLOAT16, {tokens, model.heads, model.v}),
        lse(MLA_DTYPE_FLOAT32, {model.heads, tokens}),
        args(MLA_LAYER_FORWARD_ARGS_INIT),
        layer(of_layer) {
    for (Operand* input : {&q, &kv_c_normed, &k_pe}) input->fill();
    mla_layer_forward_args& a = args.value;
    a.num_requests = 2;
    a.query_start_loc = query_start_loc.data();
    a.context_lens = context_lens.data();
    a.q = &q.view.value;
    a.kv_c_normed = &kv_c_normed.view.value;
    a.k_pe = &k_pe.view.value;
    a.kv_cache = &kv_cache.view.value;
    a.block_table = block_table.data();
    a.block_table_stride = table_width;
    a.max_blocks = table_width;
    a.out = &out.view.value;
    a.lse = &lse.view.value;
  }

  mla_status invoke() { return mla_layer_forward(layer, pointer); }
  bool untouched() const {
    return q.untouched() && kv_c_normed.untouched() && k_pe.untouched() && kv_cache.untouched() &&
           out.untouched() && lse.untouched();
  }

  Operand q, kv_c_normed, k_pe, kv_cache, out, lse;
  test::Offsets query_start_loc{0, 4, 6}, context_lens{7, 10}, block_table{4, 0, -9, 1, 2, 3};
  Padded<mla_layer_forward_args> args;
  const mla_layer_forward_args* pointer = &args.value;
  mla_layer* layer;
  float scale = 0.5F;
  alignas(64) std::uint8_t scratch[64] = {};
};

struct LayerConcatAndCache {
  LayerConcatAndCache(const test::Model& model, std::int64_t slot)
      : kv_c_normed(MLA_DTYPE_BFLOAT16, {tokens, model.rank}),
        k_pe(MLA_DTYPE_BFLOAT16, {tokens, model.rope}),
        kv_cache(MLA_DTYPE_FLOAT8_E4M3FN, {blocks, block_size, slot}),
        args(MLA_CONCAT_AND_CACHE_ARGS_INIT) {
    kv_c_normed.fill();
    k_pe.fill();
    mla_concat_and_cache_args& a = args.value;
    a.kv_c_normed = &kv_c_normed.view.value;
    a.k_pe = &k_pe.view.value;
    a.kv_cache = &kv_cache.view.value;
    a.slot_mapping = slots.data();
    a.num_slots = tokens;
  }

  mla_status invoke() { return mla_concat_and_cache_mla(pointer); }
  bool untouched() const {
    return kv_c_normed.untouched() && k_pe.untouched() && kv_cache.untouched();
  }

  Operand kv_c_normed, k_pe, kv_cache;
  std::vector<std::int64_t> slots{3, -1, 19, 0, 7, 8};
  Padded<mla_concat_and_cache_args> args;
  const mla_concat_and_cache_args* pointer = &args.value;
};

}  // namespace malformed
