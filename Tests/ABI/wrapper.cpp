// mla_prefill.hpp: exceptions, views, handles, and a class as a backend.
//
// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <new>

#include "wrapper/devices.hpp"
#include "wrapper/gathering.hpp"
#include "wrapper/indexing.hpp"
#include "wrapper/throws.hpp"

using test::expect_throws;

namespace {

void spans() {
  std::vector<std::int32_t> vector{1, 2, 3};
  const std::array<std::int32_t, 2> array{4, 5};
  const std::int32_t plain[] = {6, 7, 8, 9};
  const auto sum = [](mla::span<const std::int32_t> values) {
    std::int32_t total = 0;
    for (std::int32_t value : values) total += value;
    return total;
  };
  CHECK(sum(vector) == 6);
  CHECK(sum(array) == 9);
  CHECK(sum(plain) == 30);
  CHECK(sum(mla::span<std::int32_t>(vector)) == 6);
  CHECK(sum({}) == 0);
}

void tensors() {
  std::vector<float> values(24);
  const mla::tensor dense(values.data(), {4, 3, 2});
  CHECK(dense.struct_size == sizeof(mla_tensor) && dense.dtype == MLA_DTYPE_FLOAT32);
  CHECK(dense.ndim == 3 && dense.strides[0] == 6 && dense.strides[1] == 2 && dense.strides[2] == 1);
  const mla::tensor part = dense.narrow(0, 1, 3);
  CHECK(part.shape[0] == 2 && part.data == values.data() + 6);
  CHECK(dense.narrow(2, 1, 2).data == values.data() + 1);
  const mla::tensor strided(static_cast<const mla::bfloat16*>(nullptr), {0, 3, 2}, {8, 2, 1});
  CHECK(strided.dtype == MLA_DTYPE_BFLOAT16 && strided.strides[0] == 8);
  expect_throws(MLA_ERROR_INVALID_ARGUMENT, "narrow", [&] { (void)dense.narrow(0, 2, 5); });
  expect_throws(MLA_ERROR_INVALID_ARGUMENT, "more elements",
                [&] { (void)mla::tensor(values.data(), {1 << 20, std::int64_t{1} << 50}); });
  expect_throws(MLA_ERROR_INVALID_ARGUMENT, "dimensions",
                [&] { (void)mla::tensor(values.data(), {1, 1, 1, 1, 1}); });
  expect_throws(MLA_ERROR_INVALID_ARGUMENT, "stride",
                [&] { (void)mla::tensor(values.data(), {1, 1}, {1}); });
}

void handles() {
  const test::Model model;
  mla::backend first("CPU", model.config());
  const mla_backend* raw = first.get();
  mla::backend second = std::move(first);
  CHECK(first.get() == nullptr && second.get() == raw);
  mla::backend copy = second.clone();
  CHECK(copy.get() != raw && std::strcmp(copy.name(), "CPU") == 0);
  copy = std::move(second);
  CHECK(copy.get() == raw);
  CHECK(copy.supports_out() && !copy.supports_quant_output(MLA_DTYPE_FLOAT16));
}

/// With a batch or without; the batch stays.
void warm_up() {
  auto problem = test::Attention::new_tokens({}, MLA_DTYPE_FLOAT32, {5}, 1);
  mla::backend backend("CPU", problem.model.config());
  backend.warm_up();
  backend.prepare_metadata(problem.q_loc);
  backend.warm_up();
  problem.run_prepared(backend);
  test::expect_close(problem, test::reference_of(problem), "after a warm-up");
}

void errors() {
  expect_throws(MLA_ERROR_NOT_REGISTERED, "NO_SUCH",
                [] { mla::backend("NO_SUCH", test::Model{}.config()); });
  expect_throws(MLA_ERROR_INVALID_ARGUMENT, "query_start_loc", [] {
    mla::backend backend("CPU", test::Model{}.config());
    backend.prepare_metadata(test::Offsets{});
  });
  expect_throws(MLA_ERROR_NOT_REGISTERED, "must be registered before use", [] {
    mla_selector_config config = test::Model{}.selector();
    config.backend = "CUSTOM";
    mla::select_backend(config);
  });
}

void listing() {
  mla_selector_config config = test::Model{}.selector();
  CHECK(std::strstr(mla::select_backend(config), "CPU") != nullptr);
  config.platform = MLA_PLATFORM_CUDA;
  config.capability_major = 9;
  config.capability_minor = 0;
  const mla::backend_list list(config);
  CHECK(list.size() >= 8);
  CHECK(std::strcmp(list[0].name, "FLASH_ATTN") == 0);
  CHECK(std::strcmp(list[1].name, "FLASHINFER") == 0 && list[1].is_valid == 0);
  CHECK(list[1].num_reasons >= 1 && std::strstr(list[1].reasons, list.reason(1, 0)) != nullptr);
}

void planning() {
  const test::Offsets context{100, 0, 30}, queries{0, 5, 6, 10};
  mla_context_plan_args args = MLA_CONTEXT_PLAN_ARGS_INIT;
  args.num_requests = 3;
  args.context_lens = context.data();
  args.query_start_loc = queries.data();
  args.row_budget = 64;
  args.block_size = 16;
  const mla::context_plan plan(args);
  std::int64_t rows = 0;
  for (std::int32_t i = 0; i < plan.size(); ++i) {
    const mla_context_chunk chunk = plan.chunk(i);
    CHECK(chunk.index == i);
    CHECK(chunk.cu_seq_lens[chunk.num_requests] <= 64);
    rows += chunk.cu_seq_lens[chunk.num_requests];
  }
  CHECK(rows == 130);
}

/// A prompt at once, then in two steps with what the first one cached.
///
/// `config` says how the weights and the cache are held; `rope_cache` may be NULL.
void prompt_in_steps(const test::Model& model, mla_layer_config config, test::Array& weights,
                     const test::Array& cache, const mla::tensor* rope_cache, float tolerance) {
  constexpr std::int64_t tokens = 6, first = 4;
  std::mt19937 random(7);
  test::Array q(MLA_DTYPE_FLOAT32, {tokens, model.heads, model.qk()});
  test::Array latents(MLA_DTYPE_FLOAT32, {tokens, model.rank});
  test::Array rope(MLA_DTYPE_FLOAT32, {tokens, model.rope});
  test::Array whole(MLA_DTYPE_FLOAT32, {tokens, model.heads, model.v});
  test::Array rest(MLA_DTYPE_FLOAT32, {tokens - first, model.heads, model.v});
  for (test::Array* input : {&weights, &q, &latents, &rope}) input->fill(random);
  config.num_heads = model.heads;
  config.kv_lora_rank = model.rank;
  config.qk_nope_head_dim = model.nope;
  config.qk_rope_head_dim = model.rope;
  config.v_head_dim = model.v;
  config.dtype = MLA_DTYPE_FLOAT32;
  config.kv_b_proj = &weights.view();
  const mla::layer layer(config);

  const auto forward = [&](std::int32_t context, const test::Array& out) {
    const mla::tensor new_q = q.view().narrow(0, context, tokens);
    const mla::tensor new_latents = latents.view().narrow(0, context, tokens);
    const mla::tensor new_rope = rope.view().narrow(0, context, tokens);
    const std::int32_t query_start_loc[] = {0, static_cast<std::int32_t>(tokens) - context};
    const std::int32_t block_table[] = {1, 0};
    mla_layer_forward_args args = MLA_LAYER_FORWARD_ARGS_INIT;
    args.num_requests = 1;
    args.query_start_loc = query_start_loc;
    args.context_lens = &context;
    args.q = &new_q;
    args.kv_c_normed = &new_latents;
    args.k_pe = &new_rope;
    args.kv_cache = &cache.view();
    args.k_pe_cache = rope_cache;
    args.block_table = block_table;
    args.block_table_stride = args.max_blocks = 2;
    args.out = &out.view();
    CHECK(layer.workspace_size(args) > 0);
    layer.forward(args);
  };
  forward(0, whole);
  // Token t lies in block {1, 0}[t / 3] at t % 3.
  const std::int64_t slots[] = {3, 4, 5, 0};
  mla::concat_and_cache_mla(latents.view(), rope.view(), cache.view(), slots, config.cache_scale,
                            config.cache_format, rope_cache);
  forward(first, rest);
  const auto* expected = static_cast<const float*>(whole.view().data) + first * model.heads * model.v;
  const auto* actual = static_cast<const float*>(rest.view().data);
  for (std::int64_t i = 0; i < (tokens - first) * model.heads * model.v; ++i) {
    CHECK(std::fabs(actual[i] - expected[i]) < tolerance);
  }
  config.backend = "NOBODY";
  expect_throws(MLA_ERROR_NOT_REGISTERED, "NOBODY", [&] { (void)mla::layer(config); });
}

void layers() {
  const test::Model model{2, 8, 4, 8, 16};
  test::Array weights(MLA_DTYPE_FLOAT32, {model.heads * (model.nope + model.v), model.rank});
  const test::Array cache(MLA_DTYPE_FLOAT32, {2, 3, model.rank + model.rope});
  mla_layer_config config = MLA_LAYER_CONFIG_INIT;
  config.scale = 0.25;
  prompt_in_steps(model, config, weights, cache, nullptr, 1e-5F);
  const test::Array latents(MLA_DTYPE_FLOAT32, {2, 3, model.rank}), rope(MLA_DTYPE_FLOAT32, {2, 3, model.rope});
  prompt_in_steps(model, config, weights, latents, &rope.view(), 1e-5F);
}

void quantized_layers() {
  const test::Model model{2, 8, 64, 8, 512};
  test::Array weights(MLA_DTYPE_FLOAT8_E4M3FN, {model.heads * (model.nope + model.v), model.rank});
  const test::Array cache(MLA_DTYPE_FLOAT8_E4M3FN, {2, 3, 656});
  // Values of about 1 from sums of 512.
  float scale = 0.05F;
  const mla::tensor scales(&scale, {1});
  mla_layer_config config = MLA_LAYER_CONFIG_INIT;
  config.scale = 0.1;
  config.weight_scales = &scales;
  config.cache_format = MLA_CACHE_FORMAT_FP8_DS_MLA;
  prompt_in_steps(model, config, weights, cache, nullptr, 0.2F);
}

/// Fails as it is told to.
struct Failing {
  explicit Failing(const mla_backend_config& config) {
    if (config.num_heads == 99) throw std::bad_alloc();
  }
  void prepare_metadata(const mla_prefill_metadata& metadata) {
    if (metadata.num_requests == 2) throw std::invalid_argument("two requests are one too many");
  }
  void run_prefill_new_tokens(const mla_new_tokens_args& args) const {
    if (args.lse == nullptr) throw 7;
    if (args.q->shape[0] == 5) throw mla::error(MLA_OK, "all is well");
    throw std::runtime_error("the run went wrong");
  }
  void run_prefill_context_chunk(const mla_context_chunk_args&) const {
    throw mla::error(MLA_ERROR_UNSUPPORTED_CONFIGURATION, "no chunks, please");
  }
  bool supports_quant_output(std::int32_t) const { throw std::runtime_error("who knows"); }
  std::int64_t workspace_size() const { throw std::runtime_error("no idea how much"); }
};

/// Finds no memory to judge by.
struct Forgetful : Failing {
  using Failing::Failing;
  static void validate(const mla_selector_config&, mla::reasons&) { throw std::bad_alloc(); }
};

/// Which is no verdict: another backend may serve worse, or none.
void a_verdict_takes_memory() {
  mla::override_backend<Forgetful>("CPU");
  mla::override_backend<Forgetful>("ZEN_CPU");
  mla_selector_config config = test::Model{}.selector();
  expect_throws(MLA_ERROR_OUT_OF_MEMORY, "bad_alloc", [&] { mla::select_backend(config); });
  expect_throws(MLA_ERROR_OUT_OF_MEMORY, "bad_alloc", [&] { mla::backend_list list(config); });
  config.backend = "CPU";
  expect_throws(MLA_ERROR_OUT_OF_MEMORY, "bad_alloc", [&] { mla::select_backend(config); });
  mla::check(mla_clear_override("CPU"));
  mla::check(mla_clear_override("ZEN_CPU"));
}

void exceptions_become_statuses() {
  mla::register_backend<Failing>("FAILING");
  auto fresh = test::Attention::new_tokens({}, MLA_DTYPE_FLOAT32, {3}, 1);
  auto chunk = test::Attention::context({}, MLA_DTYPE_FLOAT32, {3}, {4}, 1);
  test::Model too_large;
  too_large.heads = 99;
  expect_throws(MLA_ERROR_OUT_OF_MEMORY, "bad_alloc",
                [&] { mla::backend("FAILING", too_large.config()); });
  mla::backend backend("FAILING", fresh.model.config());
  expect_throws(MLA_ERROR_INVALID_ARGUMENT, "one too many",
                [&] { backend.prepare_metadata(test::Offsets{0, 1, 2}); });
  expect_throws(MLA_ERROR_INTERNAL, "the run went wrong", [&] { fresh.run(backend); });
  expect_throws(MLA_ERROR_INTERNAL, "std::exception", [&] {
    backend.run_prefill_new_tokens(fresh.q.view(), fresh.k.view(), fresh.v.view(),
                                   fresh.out.view());
  });
  auto longer = test::Attention::new_tokens({}, MLA_DTYPE_FLOAT32, {5}, 1);
  expect_throws(MLA_ERROR_INTERNAL, "all is well", [&] { longer.run(backend); });
  expect_throws(MLA_ERROR_UNSUPPORTED_CONFIGURATION, "no chunks, please",
                [&] { chunk.run(backend); });
  expect_throws(MLA_ERROR_INTERNAL, "no idea how much", [&] { (void)backend.workspace_size(); });
  mla_set_last_error_message("what went wrong");
  CHECK(!backend.supports_quant_output(MLA_DTYPE_FLOAT8_E4M3FN));
  CHECK(std::strcmp(mla_last_error_message(), "what went wrong") == 0);
  mla::check(mla_remove_backend("FAILING"));
}

}  // namespace

int main(int argc, char** argv) {
  return test::run(argc, argv,
                   {{"wrapper spans", spans},
                    {"wrapper tensors", tensors},
                    {"wrapper handles", handles},
                    {"wrapper warm-up", warm_up},
                    {"wrapper errors", errors},
                    {"wrapper listing", listing},
                    {"wrapper planning", planning},
                    {"wrapper layers", layers},
                    {"wrapper quantized layers", quantized_layers},
                    {"wrapper gathering", test::wrapper_gathering},
                    {"wrapper indexing", test::wrapper_indexing},
                    {"wrapper devices", test::wrapper_devices},
                    {"wrapper a verdict takes memory", a_verdict_takes_memory},
                    {"wrapper exceptions become statuses", exceptions_become_statuses}});
}
