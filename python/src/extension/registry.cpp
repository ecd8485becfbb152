#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "arguments.h"
#include "bindings.h"
#include "python_backend.h"

namespace mla_python {

namespace {

/// What a backend must serve: mla_selector_config with the string it points to.
class SelectorConfig {
 public:
  explicit SelectorConfig(nb::kwargs keywords) {
    const NamedArguments given(std::move(keywords));
    backend_ = given.optional_text("backend");
    config_.dtype = given.int32("dtype");
    read_head_dimensions(given, config_);
    config_.platform = given.int32("platform");
    config_.capability_major = int32_argument(given["major"], "device_capability.major");
    config_.capability_minor = int32_argument(given["minor"], "device_capability.minor");
    config_.batch_invariant = given.flag("batch_invariant");
    config_.ignore_overrides = given.flag("ignore_overrides");
  }

  mla_selector_config get() const {
    mla_selector_config config = config_;
    config.backend = pointer_or_null(backend_);
    return config;
  }

 private:
  mla_selector_config config_ = MLA_SELECTOR_CONFIG_INIT;
  Text backend_;
};

using Register = mla_status (*)(const char *, const mla_backend_registration *);

template <Register function>
void register_with(nb::handle name_text, nb::handle class_path_text, nb::handle adapter,
                   nb::handle backend_name_text) {
  const std::string name = text_argument(name_text, "name");
  const Text class_path = optional_text_argument(class_path_text, "class_path");
  const Text backend_name = optional_text_argument(backend_name_text, "backend_name");
  mla_backend_registration registration = MLA_BACKEND_REGISTRATION_INIT;
  registration.class_path = pointer_or_null(class_path);
  if (adapter.is_none()) {
    call_library([&] { return function(name.c_str(), &registration); });
    return;
  }
  const mla_backend_vtable vtable = python_vtable(adapter, pointer_or_null(backend_name));
  registration.vtable = &vtable;
  mla_status status = MLA_ERROR_INTERNAL;
  try {
    call_library([&] { return status = function(name.c_str(), &registration); });
  } catch (...) {
    // What an interruption follows has been registered all the same.
    if (status != MLA_OK) release_adapter(vtable);
    throw;
  }
}

template <mla_status (*function)(const char *)>
void by_name(nb::handle name_text) {
  const std::string name = text_argument(name_text, "name");
  call_library([&] { return function(name.c_str()); });
}

nb::object text_or_none(const char *text) {
  return text ? nb::object(text_of(text)) : nb::none();
}

nb::object backend_path(nb::handle name_text) {
  const std::string name = text_argument(name_text, "name");
  const char *path = nullptr;
  call_library([&] { return mla_backend_path(name.c_str(), &path); });
  return text_or_none(path);
}

bool is_overridden(nb::handle name_text) {
  const std::string name = text_argument(name_text, "name");
  std::int32_t overridden = 0;
  call_library([&] { return mla_backend_is_overridden(name.c_str(), &overridden); });
  return overridden != 0;
}

nb::dict row(const mla_backend_list *list, std::int32_t index) {
  mla_backend_info info = MLA_BACKEND_INFO_INIT;
  call_library([&] { return mla_backend_list_get(list, index, &info); });
  nb::list reasons;
  for (std::int32_t i = 0; i < info.num_reasons; ++i) {
    const char *text = nullptr;
    call_library([&] { return mla_backend_list_reason(list, index, i, &text); });
    reasons.append(text_of(text));
  }
  nb::dict row;
  row["name"] = info.name;
  row["backend_name"] = text_of(info.backend_name);
  row["class_path"] = text_or_none(info.class_path);
  row["is_valid"] = info.is_valid != 0;
  row["reasons"] = nb::tuple(reasons);
  row["is_overridden"] = info.is_overridden != 0;
  row["is_dynamic"] = info.is_dynamic != 0;
  row["is_runnable"] = info.is_runnable != 0;
  return row;
}

nb::list backends(const SelectorConfig *config) {
  const mla_selector_config raw = config ? config->get() : mla_selector_config{};
  std::unique_ptr<mla_backend_list, void (*)(mla_backend_list *)> owner(nullptr,
                                                                        mla_backend_list_destroy);
  call_library([&] {
    mla_backend_list *made = nullptr;
    const mla_status status = mla_backend_list_create(config ? &raw : nullptr, &made);
    owner.reset(made);
    return status;
  });
  const mla_backend_list *list = owner.get();
  nb::list rows;
  for (std::int32_t i = 0; i < mla_backend_list_size(list); ++i) rows.append(row(list, i));
  return rows;
}

nb::list validate(nb::handle name_text, const SelectorConfig &config) {
  const std::string name = text_argument(name_text, "name");
  const mla_selector_config raw = config.get();
  std::vector<std::string> reasons;
  LibraryCall call;
  call([&] {
    return mla_validate_configuration(
        name.c_str(), &raw,
        [](void *sink, const char *reason) {
          static_cast<std::vector<std::string> *>(sink)->emplace_back(reason);
        },
        &reasons);
  });
  call.raise_left_behind();
  nb::list texts;
  for (const std::string &reason : reasons) texts.append(text_of(reason));
  return texts;
}

nb::str select(const SelectorConfig &config) {
  const mla_selector_config raw = config.get();
  const char *name = nullptr;
  LibraryCall call;
  call([&] { return mla_select_backend(&raw, &name); });
  call.raise_left_behind();
  return nb::str(name);
}

}  // namespace

void bind_registry(nb::module_ &module) {
  nb::class_<SelectorConfig>(module, "SelectorConfig", "What a backend must serve.")
      .def(nb::init<nb::kwargs>());
  define(module, "register_backend", &register_with<mla_register_backend>);
  define(module, "override_backend", &register_with<mla_override_backend>);
  define(module, "clear_override", &by_name<mla_clear_override>);
  define(module, "remove_backend", &by_name<mla_remove_backend>);
  define(module, "backend_path", &backend_path);
  define(module, "is_overridden", &is_overridden);
  define(module, "backends", &backends);
  define(module, "validate", &validate);
  define(module, "select", &select);
}

}  // namespace mla_python
