// The calling thread's floating-point state: results have the same bits whatever it
// is, a call leaves it as it was, flags included, and callbacks find it.
//
// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <cstdlib>
#include <thread>

#include "support.hpp"

#if defined(__x86_64__)
#include <xmmintrin.h>

namespace {

struct Mode {
  const char* name;
  unsigned bits;
};

constexpr unsigned usual = 0x1F80, unmasked = 0;

const std::vector<Mode>& modes() {
  static const std::vector<Mode> list{
      {"rounding down", usual | 0x2000},
      {"rounding up", usual | 0x4000},
      {"rounding toward zero", usual | 0x6000},
      {"flushing subnormal numbers", usual | 0x8040},
      {"all exceptions unmasked", unmasked},
      {"all exceptions unmasked, rounding up, some noted", unmasked | 0x4000 | 0x21 << 7}};
  return list;
}

unsigned mode_now = usual;

/// Calls the library, and nothing else, in the mode of the moment.
template <class Call>
auto in_mode(Call call) {
  _mm_setcsr(mode_now);
  const auto result = call();
  const unsigned after = _mm_getcsr();
  _mm_setcsr(usual);
  EXPECT(after == mode_now, "%#x is %#x after a call", mode_now, after);
  return result;
}

void good(mla_status status) { mla::check(status); }

using Bytes = std::vector<std::uint8_t>;

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

const test::Model model{2, 16, 8, 16, 512};

/// New tokens, a chunk in which a request has no keys, and the merge of both.
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

/// A cache filled, and a layer of quantized weights on it.
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
  std::vector<std::int64_t> slots;
  for (std::int64_t i = 0; i < context; ++i) slots.push_back(i);

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
  const std::int32_t q_loc[] = {0, tokens}, context_lens[] = {context};
  std::vector<std::int32_t> table;
  for (std::int32_t i = 0; i < 20; ++i) table.push_back(i);
  const mla::tensor new_latents = latents.view().narrow(0, 0, tokens);
  const mla::tensor new_k_pe = k_pe.view().narrow(0, 0, tokens);
  mla_layer_forward_args args = MLA_LAYER_FORWARD_ARGS_INIT;
  args.num_requests = 1, args.query_start_loc = q_loc, args.context_lens = context_lens;
  args.q = &q.view(), args.kv_c_normed = &new_latents, args.k_pe = &new_k_pe;
  args.kv_cache = &cache.view(), args.block_table = table.data();
  args.block_table_stride = args.max_blocks = 20;
  args.out = &out.view(), args.lse = &lse.view();
  mla_layer* layer = nullptr;
  std::int64_t bytes = 0;

  good(in_mode([&] { return mla_concat_and_cache_mla(&fill); }));
  good(in_mode([&] { return mla_layer_create(&config, &layer); }));
  good(in_mode([&] { return mla_layer_workspace_size(layer, &args, &bytes); }));
  good(in_mode([&] { return mla_layer_forward(layer, &args); }));
  in_mode([&] { return mla_layer_destroy(layer), 0; });
  Bytes all = cache.bytes();
  append(all, out.bytes());
  append(all, lse.bytes());
  return all;
}

/// Everything that computes, on one table.
Bytes results(std::int32_t isa) {
  Bytes all;
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

void each_table(const char* how) {
  for (std::int32_t isa : test::tables()) {
    mode_now = usual;
    good(mla_set_num_threads(1));
    const Bytes expected = results(isa);
    for (const Mode& mode : modes()) {
      for (std::int32_t threads : {1, 2, 4}) {
        mode_now = mode.bits;
        good(mla_set_num_threads(threads));
        const Bytes got = results(isa);
        EXPECT(got == expected, "%s, %s, %d threads%s: other bits", mla_isa_name(isa), mode.name,
               threads, how);
      }
    }
  }
  good(mla_set_num_threads(0));
  mode_now = usual;
}

void any_mode() { each_table(""); }

std::atomic<int> wrong_modes;

void expect_callers_mode() {
  if (_mm_getcsr() != mode_now) ++wrong_modes;
}

/// A loop of the host's: on threads of another mode, and on the calling one.
void loop(void*, std::int64_t count, mla_parallel_task task, void* context) {
  expect_callers_mode();
  std::thread helper([&] {
    const unsigned other = usual | 0x8040 | 0x2000;
    _mm_setcsr(other);
    for (std::int64_t i = 0; i < count / 2; ++i) task(context, i);
    if (_mm_getcsr() != other) ++wrong_modes;
  });
  for (std::int64_t i = count / 2; i < count; ++i) task(context, i);
  expect_callers_mode();
  helper.join();
}

void loops_of_the_host() {
  good(mla_set_parallel_for(loop, nullptr));
  each_table(" of the host's");
  good(mla_set_parallel_for(nullptr, nullptr));
  EXPECT(wrong_modes == 0, "%d times another mode in a loop of the host's", wrong_modes.load());
}

/// Computes in whatever mode it is called in, and falls back on FLASH_ATTN.
struct Watching {
  static mla_backend* own(void* instance) { return static_cast<mla_backend*>(instance); }
  /// Leaves another mode behind, which is nobody's business.
  static void look() {
    expect_callers_mode();
    _mm_setcsr(usual | 0x6000 | 0x3F);
  }
  /// The library's calls from here are calls like any others.
  template <class Call>
  static auto watched(Call call) {
    expect_callers_mode();
    const auto result = call();
    look();
    return result;
  }
};

mla_backend_vtable watching() {
  mla_backend_vtable table = MLA_BACKEND_VTABLE_INIT;
  table.destroy_context = [](void*) { Watching::look(); };
  table.validate = [](void*, const mla_selector_config*, mla_reason_sink sink, void* to) {
    return Watching::watched([&] { return sink(to, "not today"), mla_status{MLA_OK}; });
  };
  table.create = [](void*, const mla_backend_config* config, void** instance) {
    return Watching::watched([&] {
      mla_backend_config mine = *config;
      mine.ignore_override = 1;
      mla_backend* made = nullptr;
      const mla_status status = mla_backend_create("FLASH_ATTN", &mine, &made);
      *instance = made;
      return status;
    });
  };
  table.destroy = [](void*, void* instance) {
    Watching::watched([&] { return mla_backend_destroy(Watching::own(instance)), 0; });
  };
  table.prepare_metadata = [](void*, void* instance, const mla_prefill_metadata* batch) {
    return Watching::watched([&] { return mla_prepare_metadata(Watching::own(instance), batch); });
  };
  table.run_prefill_new_tokens = [](void*, void* instance, const mla_new_tokens_args* args) {
    return Watching::watched(
        [&] { return mla_run_prefill_new_tokens(Watching::own(instance), args); });
  };
  table.run_prefill_context_chunk = [](void*, void* instance, const mla_context_chunk_args* args) {
    return Watching::watched(
        [&] { return mla_run_prefill_context_chunk(Watching::own(instance), args); });
  };
  table.supports_out = [](void*, void*) { return Watching::look(), std::int32_t{1}; };
  table.supports_quant_output = [](void*, void*, std::int32_t) {
    return Watching::look(), std::int32_t{0};
  };
  table.workspace_size = [](void*, void*) { return Watching::look(), std::int64_t{0}; };
  return table;
}

/// The registry and what else does not compute, on a registered backend.
void registered_backends() {
  wrong_modes = 0;
  const Bytes expected = backend_results("FLASH_ATTN", 0, MLA_DTYPE_FLOAT32);
  for (const Mode& mode : modes()) {
    mode_now = mode.bits;
    const mla_backend_vtable table = watching();
    mla_backend_registration registration = MLA_BACKEND_REGISTRATION_INIT;
    registration.vtable = &table;
    const mla_selector_config wanted = model.selector();
    const char* name = nullptr;
    mla_backend_list* list = nullptr;
    mla_cpu_info info = MLA_CPU_INFO_INIT;
    mla_backend* backend = nullptr;
    std::int32_t answer = 0;
    const mla_backend_config config = model.config();
    const auto sink = [](void*, const char*) { Watching::look(); };

    good(in_mode([&] { return mla_override_backend("FLASH_ATTN", &registration); }));
    good(in_mode([&] { return mla_select_backend(&wanted, &name); }));
    good(in_mode([&] { return mla_validate_configuration("FLASH_ATTN", &wanted, sink, nullptr); }));
    good(in_mode([&] { return mla_backend_list_create(&wanted, &list); }));
    in_mode([&] { return mla_backend_list_destroy(list), 0; });
    good(in_mode([&] { return mla_get_cpu_info(&info); }));
    in_mode([&] { return mla_cpu_summary(), mla_version(), mla_get_num_threads(); });
    good(in_mode([&] { return mla_backend_create("FLASH_ATTN", &config, &backend); }));
    good(in_mode([&] { return mla_supports_out(backend, &answer); }));
    good(in_mode([&] { return mla_supports_quant_output(backend, 4, &answer); }));
    in_mode([&] { return mla_backend_destroy(backend), 0; });
    const Bytes got = backend_results("FLASH_ATTN", 0, MLA_DTYPE_FLOAT32);
    EXPECT(got == expected, "%s: other bits of a registered backend", mode.name);
    layer_results("FLASH_ATTN", 0, MLA_LAYER_ALGORITHM_UP_PROJECTED, MLA_CACHE_FORMAT_PLAIN);
    good(in_mode([&] { return mla_clear_override("FLASH_ATTN"); }));
  }
  mode_now = usual;
  EXPECT(wrong_modes == 0, "%d callbacks found another mode", wrong_modes.load());
}

/// What the environment got wrong is told to every new callback.
void log_callbacks() {
  static int messages;
  wrong_modes = messages = 0;
  for (const Mode& mode : modes()) {
    mode_now = mode.bits;
    const auto callback = [](void*, std::int32_t, const char*) { ++messages, Watching::look(); };
    good(in_mode([&] { return mla_set_log_callback(callback, nullptr); }));
    good(in_mode([&] { return mla_set_log_callback(nullptr, nullptr); }));
  }
  mode_now = usual;
  EXPECT(messages == static_cast<int>(modes().size()), "%d messages", messages);
  EXPECT(wrong_modes == 0, "%d messages came in another mode", wrong_modes.load());
}

void plans_and_refusals() {
  for (const Mode& mode : modes()) {
    mode_now = mode.bits;
    const std::int32_t context_lens[] = {1000, 3, 0, 70};
    mla_context_plan_args args = MLA_CONTEXT_PLAN_ARGS_INIT;
    args.num_requests = 4, args.context_lens = context_lens;
    args.row_budget = 128, args.block_size = 16;
    mla_context_plan* plan = nullptr;
    good(in_mode([&] { return mla_plan_context_chunks(&args, &plan); }));
    in_mode([&] { return mla_context_plan_destroy(plan), 0; });
    mla_backend* backend = nullptr;
    for (double scale : {1e300, static_cast<double>(NAN), -1e-300, 1e-40}) {
      mla_backend_config config = model.config();
      config.scale = scale;
      const mla_status status = in_mode([&] { return mla_backend_create("CPU", &config, &backend); });
      CHECK(status == MLA_ERROR_INVALID_ARGUMENT);
    }
  }
  mode_now = usual;
}

}  // namespace

int main(int argc, char** argv) {
  setenv("MLA_MAX_ISA", "of no kernels", 1);
  return test::run(argc, argv, {{"any mode, threads of the library's", any_mode},
                                {"any mode, threads of the host's", loops_of_the_host},
                                {"registered backends", registered_backends},
                                {"the log", log_callbacks},
                                {"plans and refusals", plans_and_refusals}});
}

#else

int main() { std::puts("ok arithmetic: nothing to see without MXCSR"); }

#endif
