// The calling thread's floating-point state: results have the same bits whatever it
// is, a call leaves it as it was, flags included, and callbacks find it.
//
// SPDX-License-Identifier: Apache-2.0
#if defined(__x86_64__) || defined(__aarch64__)
#include <atomic>
#include <cstdlib>
#include <thread>

#include "arithmetic/results.hpp"

namespace {

using namespace arithmetic;

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
  if (mode_of_thread() != mode_now) ++wrong_modes;
}

/// A loop of the host's: on threads of another mode, and on the calling one.
void loop(void*, std::int64_t count, mla_parallel_task task, void* context) {
  expect_callers_mode();
  std::thread helper([&] {
    const Bits other = usual | flushing | down;
    set_mode(other);
    for (std::int64_t i = 0; i < count / 2; ++i) task(context, i);
    if (mode_of_thread() != other) ++wrong_modes;
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
    set_mode(usual | toward_zero | noted);
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
#include <cstdio>

int main() { std::puts("ok arithmetic: no state known here"); }

#endif
