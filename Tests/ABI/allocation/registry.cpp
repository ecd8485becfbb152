// Host, registry, selector and context plans.
//
// SPDX-License-Identifier: Apache-2.0
#include "call.hpp"

namespace allocation {
namespace {

Delegate& self(void* context) { return *static_cast<Delegate*>(context); }

mla_status create(void* context, const mla_backend_config* config, void** instance) {
  mla_backend_config own = *config;
  mla_backend* backend = nullptr;
  own.ignore_override = 1;
  const mla_status status = mla_backend_create("FLASH_ATTN", &own, &backend);
  if (status == MLA_OK) ++self(context).created;
  *instance = backend;
  return status;
}

mla_status validate(void*, const mla_selector_config* config, mla_reason_sink sink, void* to) {
  if (config->dtype != MLA_DTYPE_FLOAT32) sink(to, "this backend has a long reason: only fp32 here");
  return MLA_OK;
}

mla_backend* object(void* instance) { return static_cast<mla_backend*>(instance); }

Call named(const char* name, std::function<mla_status()> call, std::vector<Output> outputs = {}) {
  Call made;
  made.name = name;
  made.call = std::move(call);
  made.outputs = std::move(outputs);
  return made;
}

bool is_member(const char* name) {
  std::int32_t overridden = 0;
  return mla_backend_is_overridden(name, &overridden) == MLA_OK;
}

/// A class path longer than what Swift keeps without memory of its own.
mla_backend_registration by_class_path() {
  mla_backend_registration registration = MLA_BACKEND_REGISTRATION_INIT;
  registration.class_path = "some.package.with_a_long_name.ClassOfABackend";
  return registration;
}

constexpr const char* new_name = "A_NAME_THAT_TAKES_MEMORY";

}  // namespace

Delegate::Delegate() : table(MLA_BACKEND_VTABLE_INIT), registration(MLA_BACKEND_REGISTRATION_INIT) {
  table.context = this;
  table.backend_name = "A_BACKEND_OF_SOMEBODY_ELSE";
  table.destroy_context = [](void* context) { ++self(context).contexts_destroyed; };
  table.validate = validate;
  table.create = create;
  table.destroy = [](void* context, void* instance) {
    ++self(context).destroyed;
    mla_backend_destroy(object(instance));
  };
  table.prepare_metadata = [](void*, void* instance, const mla_prefill_metadata* metadata) {
    return mla_prepare_metadata(object(instance), metadata);
  };
  table.run_prefill_new_tokens = [](void*, void* instance, const mla_new_tokens_args* args) {
    return mla_run_prefill_new_tokens(object(instance), args);
  };
  table.run_prefill_context_chunk = [](void*, void* instance, const mla_context_chunk_args* args) {
    return mla_run_prefill_context_chunk(object(instance), args);
  };
  table.workspace_size = [](void*, void* instance) {
    std::int64_t bytes = -1;
    const mla_status status = mla_workspace_size(object(instance), &bytes);
    return status == MLA_OK ? bytes : -std::int64_t{status};
  };
  registration.vtable = &table;
}

std::vector<Call> host_calls() {
  std::vector<Call> calls;
  auto& info = kept<mla_cpu_info>();
  calls.push_back(
      named("mla_get_cpu_info", [&] { return mla_get_cpu_info(&info); }, {fields_of(info)}));
  calls.back().before = [&] { info.struct_size = sizeof(info); };
  calls.push_back(named("strings without a status", [] {
    return mla_cpu_summary()[0] != 0 && mla_version()[0] != 0 && mla_get_num_threads() > 0
               ? MLA_OK
               : MLA_ERROR_INTERNAL;
  }));
  calls.push_back(named("a refused call", [] { return mla_set_num_threads(-1); }));
  calls.back().status = MLA_ERROR_INVALID_ARGUMENT;
  calls.back().holds = [](mla_status status) {
    return status != MLA_ERROR_INVALID_ARGUMENT ||
           std::strcmp(mla_last_error_message(), "num_threads = -1: must be 0 to 1024") == 0;
  };
  calls.push_back(named("mla_set_last_error_message", [] {
    static const std::string text(3000, 'x');
    mla_set_last_error_message(text.c_str());
    return text == mla_last_error_message() ? MLA_OK : MLA_ERROR_INTERNAL;
  }));
  calls.push_back(named("mla_set_log_callback", [] {
    return mla_set_log_callback([](void*, std::int32_t, const char*) {}, nullptr);
  }));
  calls.back().undo = [] { mla_set_log_callback(nullptr, nullptr); };
  calls.push_back(named("mla_set_verbose", [] {
    return mla_set_verbose(2, [](void*, std::int32_t, const char*) {}, nullptr);
  }));
  calls.back().undo = [] { mla_set_verbose(0, nullptr, nullptr); };
  calls.push_back(named("mla_get_stats", [] {
    mla_call_stats stats = MLA_CALL_STATS_INIT;
    return mla_get_stats(0, &stats);
  }));
  calls.push_back(named("mla_trim", [] { return mla_trim(nullptr); }));
  calls.push_back(named("mla_get_log_callback", [] {
    mla_log_callback callback = nullptr;
    return mla_get_log_callback(&callback, nullptr);
  }));
  return calls;
}

std::vector<Call> registry_calls() {
  std::vector<Call> calls;
  auto& delegate = kept<Delegate>();
  auto& path = kept<mla_backend_registration>(by_class_path());
  for (const mla_backend_registration* one : {&delegate.registration, &path}) {
    calls.push_back(named("mla_register_backend", [=] { return mla_register_backend(new_name, one); }));
    calls.back().before = [&] { delegate.contexts_destroyed = 0; };
    calls.back().undo = [] { mla_remove_backend(new_name); };
    calls.back().holds = [&](mla_status status) {
      return is_member(new_name) == (status == MLA_OK) && delegate.contexts_destroyed == 0;
    };
    calls.push_back(named("mla_override_backend", [=] { return mla_override_backend("CUSTOM", one); }));
    calls.back().before = calls[calls.size() - 2].before;
    calls.back().undo = [] { mla_clear_override("CUSTOM"); };
    calls.back().holds = [&](mla_status status) {
      std::int32_t overridden = 0;
      mla_backend_is_overridden("CUSTOM", &overridden);
      return (overridden != 0) == (status == MLA_OK) && delegate.contexts_destroyed == 0;
    };
  }
  calls.push_back(named("mla_remove_backend", [] { return mla_remove_backend(new_name); }));
  calls.back().before = [&] {
    mla_register_backend(new_name, &delegate.registration);
    delegate.contexts_destroyed = 0;
  };
  calls.back().holds = [&](mla_status status) {
    const bool removed = !is_member(new_name);
    if (!removed) mla_remove_backend(new_name);
    return removed == (status == MLA_OK) && delegate.contexts_destroyed == 1;
  };
  calls.push_back(named("mla_clear_override", [] { return mla_clear_override("CUSTOM"); }));
  calls.back().before = [&] { mla_override_backend("CUSTOM", &path); };
  auto& class_path = kept<const char*>();
  auto& flag = kept<std::int32_t>();
  calls.push_back(named(
      "mla_backend_path", [&] { return mla_backend_path("FLASHINFER", &class_path); },
      {value_of(class_path)}));
  calls.push_back(named(
      "mla_backend_is_overridden", [&] { return mla_backend_is_overridden("NO_SUCH", &flag); },
      {value_of(flag)}));
  calls.back().status = MLA_ERROR_NOT_REGISTERED;
  return calls;
}

std::vector<Call> selector_calls() {
  std::vector<Call> calls;
  auto& config = kept<mla_selector_config>(test::Model{}.selector());
  auto& on_gpu = kept<mla_selector_config>(config);
  on_gpu.platform = MLA_PLATFORM_CUDA;
  on_gpu.capability_major = 8;
  on_gpu.capability_minor = 0;
  auto& chosen = kept<mla_selector_config>(on_gpu);
  chosen.backend = "trtllm_ragged";
  auto& name = kept<const char*>();
  calls.push_back(named(
      "mla_select_backend", [&] { return mla_select_backend(&config, &name); }, {value_of(name)}));
  calls.push_back(named(
      "mla_select_backend, refused", [&] { return mla_select_backend(&chosen, &name); },
      {value_of(name)}));
  calls.back().status = MLA_ERROR_UNSUPPORTED_CONFIGURATION;
  auto& reasons = kept<std::int32_t>();
  calls.push_back(named(
      "mla_validate_configuration",
      [&] {
        return mla_validate_configuration(
            "FLASHINFER", &on_gpu,
            [](void* count, const char*) {
              auto& seen = *static_cast<std::int32_t*>(count);
              seen = std::max(seen, 0) + 1;
            },
            &reasons);
      },
      {value_of(reasons)}));
  auto& list = kept<mla_backend_list*>();
  auto& delegate = kept<Delegate>();
  calls.push_back(named(
      "mla_backend_list_create", [&] { return mla_backend_list_create(&on_gpu, &list); },
      {handle_of(list)}));
  calls.back().before = [&] { mla_override_backend("CUSTOM", &delegate.registration); };
  calls.back().undo = [&] { mla_backend_list_destroy(list); };
  calls.back().holds = [](mla_status) { return mla_clear_override("CUSTOM") == MLA_OK; };
  auto& rows = kept<mla_backend_list*>();
  mla::check(mla_backend_list_create(&on_gpu, &rows));
  auto& info = kept<mla_backend_info>();
  calls.push_back(named(
      "mla_backend_list_get", [&] { return mla_backend_list_get(rows, 1, &info); },
      {fields_of(info)}));
  calls.back().before = [&] { info.struct_size = sizeof(info); };
  calls.push_back(named(
      "mla_backend_list_reason", [&] { return mla_backend_list_reason(rows, 1, 0, &name); },
      {value_of(name)}));
  return calls;
}

std::vector<Call> context_plan_calls() {
  std::vector<Call> calls;
  static const std::int32_t contexts[] = {100, 200, 300}, offsets[] = {0, 4, 5, 9};
  auto& wanted = kept<mla_context_plan_args>();
  wanted = MLA_CONTEXT_PLAN_ARGS_INIT;
  wanted.num_requests = 3;
  wanted.context_lens = contexts;
  wanted.query_start_loc = offsets;
  wanted.row_budget = 64;
  wanted.block_size = 16;
  auto& plan = kept<mla_context_plan*>();
  calls.push_back(named(
      "mla_plan_context_chunks", [&] { return mla_plan_context_chunks(&wanted, &plan); },
      {handle_of(plan)}));
  calls.back().undo = [&] { mla_context_plan_destroy(plan); };
  auto& planned = kept<mla_context_plan*>();
  mla::check(mla_plan_context_chunks(&wanted, &planned));
  auto& chunk = kept<mla_context_plan_chunk>();
  calls.push_back(named(
      "mla_context_plan_get", [&] { return mla_context_plan_get(planned, 2, &chunk); },
      {fields_of(chunk)}));
  calls.back().before = [&] { chunk.struct_size = sizeof(chunk); };
  return calls;
}

}  // namespace allocation
