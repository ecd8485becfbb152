// SPDX-License-Identifier: Apache-2.0
#if defined(__x86_64__) || defined(__aarch64__)
#include "results.hpp"

#include "../indexing.hpp"
#include "../layer_request.hpp"

namespace arithmetic {
namespace {

void append(Bytes& all, const Bytes& more) { all.insert(all.end(), more.begin(), more.end()); }

/// Values at every edge among ordinary ones; a row of them is not finite.
void roughen(test::Array& array) {
  const double values[] = {1e-40, -1e-42, 3e-39, 1e-20, 60, 0};
  std::int64_t number = 0;
  array.each([&](std::int64_t i, std::int64_t j, std::int64_t k) {
    if (++number % 7 == 0) array.set(i, j, k, values[number / 7 % 6]);
  });
  for (std::int64_t k = 0; k < array.size(2); ++k) {
    array.set(array.size(0) - 1, 0, k, k % 3 == 0 ? NAN : k % 3 == 1 ? INFINITY : 1e30);
  }
}

}  // namespace

Bytes backend_results(const char* name, std::int32_t isa, std::int32_t dtype) {
  auto step = test::Attention::new_tokens(model, dtype, {70, 9}, 5);
  auto chunk = test::Attention::context(model, dtype, {70, 9}, {130, 0}, 6);
  for (test::Array* array : {&step.q, &step.k, &step.v, &chunk.k, &chunk.v}) roughen(*array);
  chunk.q = step.q;
  const mla_backend_config config = model.config(isa);
  mla_backend *backend = nullptr, *clone = nullptr;
  mla_prefill_metadata batch = MLA_PREFILL_METADATA_INIT;
  const mla_context_chunk chunks[] = {chunk.chunk(0)};
  batch.num_requests = 2, batch.num_chunks = 1;
  batch.query_start_loc = step.q_loc.data(), batch.chunks = chunks;
  mla_new_tokens_args args = MLA_NEW_TOKENS_ARGS_INIT;
  args.q = &step.q.view(), args.k = &step.k.view(), args.v = &step.v.view();
  args.out = &step.out.view(), args.lse = &step.lse.view();
  mla_context_chunk_args context = MLA_CONTEXT_CHUNK_ARGS_INIT;
  context.chunk = chunks, context.q = &chunk.q.view(), context.k = &chunk.k.view();
  context.v = &chunk.v.view(), context.out = &chunk.out.view(), context.lse = &chunk.lse.view();
  test::Array merged(MLA_DTYPE_FLOAT8_E4M3FN, {79, model.heads, model.v});
  mla_merge_args merge = MLA_MERGE_ARGS_INIT;
  const float scale = 0.3F;
  merge.output = &merged.view(), merge.output_scale = &scale;
  merge.prefix_output = context.out, merge.prefix_lse = context.lse;
  merge.suffix_output = args.out, merge.suffix_lse = args.lse;
  std::int64_t bytes = 0;

  good(in_mode([&] { return mla_backend_create(name, &config, &backend); }));
  good(in_mode([&] { return mla_backend_clone(backend, &clone); }));
  good(in_mode([&] { return mla_prepare_metadata(clone, &batch); }));
  good(in_mode([&] { return mla_workspace_size(clone, &bytes); }));
  good(in_mode([&] { return mla_run_prefill_new_tokens(clone, &args); }));
  good(in_mode([&] { return mla_run_prefill_context_chunk(clone, &context); }));
  good(in_mode([&] { return mla_merge_attn_states(&merge); }));
  for (mla_backend* each : {backend, clone}) in_mode([&] { return mla_backend_destroy(each), 0; });
  Bytes all;
  for (const test::Array* array : {&step.out, &step.lse, &chunk.out, &chunk.lse, &merged}) {
    append(all, array->bytes());
  }
  return all;
}

Bytes layer_results(const char* backend, std::int32_t isa, std::int32_t algorithm,
                    std::int32_t cache_format) {
  std::mt19937 random(3);
  const bool plain = cache_format == MLA_CACHE_FORMAT_PLAIN;
  const std::int32_t rope = 64, context = 300, tokens = 20, heads = 2, nope = 16, v = 16;
  test::Array weights(MLA_DTYPE_FLOAT8_E4M3FN, {heads * (nope + v), 512});
  test::Array scales(MLA_DTYPE_FLOAT32, {1, 4});
  test::Array q(MLA_DTYPE_FLOAT32, {tokens, heads, nope + rope});
  test::Array latents(MLA_DTYPE_FLOAT32, {context, 512}), k_pe(MLA_DTYPE_FLOAT32, {context, rope});
  test::Array cache(MLA_DTYPE_FLOAT8_E4M3FN, {20, 16, plain ? 512 + rope : 656});
  test::Array out(MLA_DTYPE_FLOAT16, {tokens, heads, v}), lse(MLA_DTYPE_FLOAT32, {heads, tokens});
  weights.fill(random, 0.1), scales.fill(random, 0);
  for (std::int64_t i = 0; i < 4; ++i) scales.set(0, i, 0, 0.1 + 0.3 * static_cast<double>(i));
  for (test::Array* array : {&q, &latents, &k_pe}) array->fill(random);
  latents.set(5, 7, 0, 1e-40), latents.set(context - 1, 7, 0, NAN);
  const auto slots = test::numbered<std::int64_t>(context);

  mla_concat_and_cache_args fill = MLA_CONCAT_AND_CACHE_ARGS_INIT;
  fill.kv_c_normed = &latents.view(), fill.k_pe = &k_pe.view(), fill.kv_cache = &cache.view();
  fill.slot_mapping = slots.data(), fill.num_slots = context;
  fill.cache_format = cache_format, fill.cache_scale = plain ? 0.07F : 0.0F;
  mla_layer_config config = MLA_LAYER_CONFIG_INIT;
  config.num_heads = heads, config.scale = 0.1, config.kv_lora_rank = 512, config.max_isa = isa;
  config.qk_nope_head_dim = nope, config.qk_rope_head_dim = rope, config.v_head_dim = v;
  config.dtype = MLA_DTYPE_FLOAT32, config.kv_b_proj = &weights.view();
  config.weight_scales = &scales.view(), config.cache_dtype = MLA_DTYPE_FLOAT8_E4M3FN;
  config.backend = backend, config.cache_format = cache_format, config.algorithm = algorithm;
  config.cache_scale = fill.cache_scale;
  const mla::tensor new_latents = latents.view().narrow(0, 0, tokens);
  const mla::tensor new_k_pe = k_pe.view().narrow(0, 0, tokens);
  test::LayerRequest request(q, new_latents, &new_k_pe, cache, context, out);
  request.args.lse = &lse.view();
  test::Array rows(MLA_DTYPE_FLOAT16, {context, 512 + rope});
  const std::int32_t offsets[] = {0, context};
  mla_gather_cache_args gather = MLA_GATHER_CACHE_ARGS_INIT;
  gather.kv_cache = &cache.view(), gather.cache_format = cache_format, gather.cache_scale = fill.cache_scale;
  gather.num_requests = 1, gather.cu_seq_lens = offsets, gather.dst = &rows.view();
  gather.block_table = request.args.block_table, gather.max_blocks = request.args.max_blocks;
  gather.block_table_stride = gather.max_blocks;
  mla_layer* layer = nullptr;
  std::int64_t bytes = 0;

  good(in_mode([&] { return mla_concat_and_cache_mla(&fill); }));
  good(in_mode([&] { return mla_layer_create(&config, &layer); }));
  good(in_mode([&] { return mla_layer_workspace_size(layer, &request.args, &bytes); }));
  good(in_mode([&] { return mla_layer_forward(layer, &request.args); }));
  in_mode([&] { return mla_layer_destroy(layer), 0; });
  good(in_mode([&] { return mla_gather_and_maybe_dequant_cache(&gather); }));
  Bytes all = cache.bytes();
  append(all, rows.bytes());
  append(all, out.bytes());
  append(all, lse.bytes());
  return all;
}

/// Keys that are turned and quantized, and a selection among them.
static Bytes index_results(std::int32_t isa) {
  test::IndexProblem problem({MLA_DTYPE_BFLOAT16, MLA_DTYPE_FLOAT8_E4M3FN, 5, 32, 8, 12, MLA_INDEX_FORMAT_FP8_BLOCK, true},
                       {{60, 7}}, 1);
  test::Array k(MLA_DTYPE_FLOAT32, {8, 32});
  std::mt19937 random(2);
  k.fill(random, 1e-3);
  const auto slots = test::numbered<std::int64_t>(8);
  mla_index_store_args store = MLA_INDEX_STORE_ARGS_INIT;
  store.format = MLA_INDEX_FORMAT_FP8_BLOCK, store.hadamard = 1;
  store.k = &k.view(), store.index_cache = &problem.cache.view();
  store.slot_mapping = slots.data(), store.num_slots = 8;
  mla_index_select_args select = problem.args();
  select.hadamard = 1, select.max_isa = isa;
  good(in_mode([&] { return mla_index_store(&store); }));
  good(in_mode([&] { return mla_index_select(&select); }));
  Bytes all = problem.cache.bytes();
  append(all, problem.scores.bytes());
  return all;
}

Bytes results(std::int32_t isa) {
  Bytes all = index_results(isa);
  for (std::int32_t dtype : {MLA_DTYPE_FLOAT32, MLA_DTYPE_FLOAT16, MLA_DTYPE_BFLOAT16}) {
    append(all, backend_results("CPU", isa, dtype));
  }
  append(all, backend_results("TOKENSPEED_MLA", isa, MLA_DTYPE_FLOAT32));
  append(all, backend_results("FLASHINFER", isa, MLA_DTYPE_FLOAT32));
  for (std::int32_t algorithm : {MLA_LAYER_ALGORITHM_AUTO, MLA_LAYER_ALGORITHM_UP_PROJECTED,
                                 MLA_LAYER_ALGORITHM_ABSORBED}) {
    for (std::int32_t format : {MLA_CACHE_FORMAT_PLAIN, MLA_CACHE_FORMAT_FP8_DS_MLA}) {
      append(all, layer_results("CPU", isa, algorithm, format));
    }
  }
  return all;
}

}  // namespace arithmetic
#endif
