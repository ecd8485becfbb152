// Malformed calls of the registry.
//
// SPDX-License-Identifier: Apache-2.0
#include "rules.hpp"

namespace malformed {
namespace {

/// What takes back a call that succeeded must succeed, too.
mla_status when_there_is_memory(mla_status (*call)(const char*), const char* name) {
  mla_status status = MLA_OK;
  do status = call(name);
  while (status == MLA_ERROR_OUT_OF_MEMORY);
  return status;
}

constexpr mla_status invalid = MLA_ERROR_INVALID_ARGUMENT;
constexpr mla_status not_registered = MLA_ERROR_NOT_REGISTERED;

mla_status never_create(void*, const mla_backend_config*, void**) { return MLA_ERROR_INTERNAL; }
mla_status never_run(void*, void*, const mla_new_tokens_args*) { return MLA_ERROR_INTERNAL; }
mla_status never_chunk(void*, void*, const mla_context_chunk_args*) { return MLA_ERROR_INTERNAL; }

/// Registers a member or overrides one, and undoes it where that succeeds.
struct Registering {
  Registering() : table(MLA_BACKEND_VTABLE_INIT), registration(MLA_BACKEND_REGISTRATION_INIT) {
    table.value.create = never_create;
    table.value.run_prefill_new_tokens = never_run;
    table.value.run_prefill_context_chunk = never_chunk;
    registration.value.class_path = "package.module.Class";
    registration.value.vtable = &table.value;
  }

  bool untouched() const { return true; }

  Padded<mla_backend_vtable> table;
  Padded<mla_backend_registration> registration;
  const mla_backend_registration* pointer = &registration.value;
};

struct Register : Registering {
  mla_status invoke() {
    const mla_status status = mla_register_backend(name, pointer);
    if (status == MLA_OK) when_there_is_memory(mla_remove_backend, name);
    return status;
  }
  const char* name = "MALFORMED";
};

struct Override : Registering {
  mla_status invoke() {
    const mla_status status = mla_override_backend(name, pointer);
    if (status == MLA_OK) when_there_is_memory(mla_clear_override, name);
    return status;
  }
  const char* name = "FLASH_ATTN";
};

template <class Call>
std::vector<Rule<Call>> registering_rules() {
  std::vector<Rule<Call>> rules;
  add_struct_rules(rules, "registration", [](Call& c) -> auto& { return c.registration; },
                   [](Call& c) -> auto& { return c.pointer; });
  std::vector<Rule<Call>> of_table;
  add_struct_rules(of_table, "vtable", [](Call& c) -> auto& { return c.table; },
                   [](Call& c) -> auto& { return c.registration.value.vtable; });
  // NULL is allowed here: a class path is given.
  rules.insert(rules.end(), of_table.begin() + 1, of_table.end());
  const auto add = [&](const char* field, auto apply) { rules.push_back({field, invalid, apply}); };
  add("name", [](Call& c, Random&) { c.name = nullptr; });
  add("class_path", [](Call& c, Random&) {
    c.registration.value.class_path = nullptr;
    c.registration.value.vtable = nullptr;
  });
  add("class_path", [](Call& c, Random&) { c.registration.value.class_path = "\xc3("; });
  add("create", [](Call& c, Random&) { c.table.value.create = nullptr; });
  add("run_prefill_new_tokens",
      [](Call& c, Random&) { c.table.value.run_prefill_new_tokens = nullptr; });
  add("run_prefill_context_chunk",
      [](Call& c, Random&) { c.table.value.run_prefill_context_chunk = nullptr; });
  return rules;
}

/// The functions that take a name and have one place for an answer.
template <mla_status (*Invoke)(const char*, std::int32_t*, const char**)>
struct Named {
  mla_status invoke() { return Invoke(name, number_place, text_place); }
  bool untouched() const { return number == 77 && text == canary<char>(); }

  const char* name = "FLASH_ATTN";
  std::int32_t number = 77;
  std::int32_t* number_place = &number;
  const char* text = canary<char>();
  const char** text_place = &text;
};

mla_status clear(const char* name, std::int32_t*, const char**) { return mla_clear_override(name); }
mla_status remove(const char* name, std::int32_t*, const char**) {
  // No dynamic member is left to be removed: the well-formed call is made here.
  if (name != nullptr && std::strcmp(name, "FLASH_ATTN") == 0) {
    Register call;
    mla_status status = mla_register_backend("TO_BE_REMOVED", call.pointer);
    if (status == MLA_OK) status = when_there_is_memory(mla_remove_backend, "TO_BE_REMOVED");
    return status;
  }
  return mla_remove_backend(name);
}
mla_status path(const char* name, std::int32_t*, const char** text) {
  return mla_backend_path(name, text);
}
mla_status overridden(const char* name, std::int32_t* number, const char**) {
  return mla_backend_is_overridden(name, number);
}

template <class Call>
std::vector<Rule<Call>> named_rules(const char* place) {
  std::vector<Rule<Call>> rules{
      {"name", invalid, [](Call& c, Random&) { c.name = nullptr; }},
      {"name", invalid, [](Call& c, Random&) { c.name = "\xff"; }},
      {"", not_registered, [](Call& c, Random& random) { c.name = unknown_name(random); }}};
  if (place != nullptr) {
    rules.push_back({place, invalid, [](Call& c, Random&) {
                       c.number_place = nullptr;
                       c.text_place = nullptr;
                     }});
  }
  return rules;
}

}  // namespace

std::vector<Function> registry_functions() {
  std::vector<Rule<Register>> registering = registering_rules<Register>();
  registering.push_back({"", invalid, [](Register& c, Random& random) {
                           c.name = random.any_of({"", "1abc", "has space", "a-b", "CPU", "CUSTOM",
                                                   "FLASH_ATTN", "__class__", "name", "\xff"});
                         }});
  std::vector<Rule<Override>> overriding = registering_rules<Override>();
  overriding.push_back({"", not_registered,
                        [](Override& c, Random& random) { c.name = unknown_name(random); }});
  std::vector<Rule<Named<remove>>> removing = named_rules<Named<remove>>(nullptr);
  removing.push_back({"name", invalid, [](Named<remove>& c, Random&) { c.name = "CPU"; }});
  std::vector<Rule<Named<path>>> paths = named_rules<Named<path>>("class_path");
  paths.push_back({"CUSTOM", not_registered, [](Named<path>& c, Random&) { c.name = "CUSTOM"; }});
  return {
      function<Register>("mla_register_backend", registering),
      function<Override>("mla_override_backend", overriding),
      function<Named<clear>>("mla_clear_override", named_rules<Named<clear>>(nullptr)),
      function<Named<remove>>("mla_remove_backend", removing),
      function<Named<path>>("mla_backend_path", paths),
      function<Named<overridden>>("mla_backend_is_overridden",
                                  named_rules<Named<overridden>>("is_overridden")),
  };
}

}  // namespace malformed
