// Arguments of calls from Python, checked by name.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "calls.h"

namespace mla_python {

/// A parameter that takes whatever it is handed: the call judges it, by the name that it has
/// in Python's signature.
template <class>
auto anything() {
  return nb::arg().none();
}

/// Binds a function whose arguments come by their places.
template <class Scope, class Result, class... Arguments>
void define(Scope &scope, const char *name, Result (*function)(Arguments...)) {
  scope.def(name, function, anything<Arguments>()...);
}
template <class Scope, class Self, class Result, class... Arguments>
void define(Scope &scope, const char *name, Result (Self::*method)(Arguments...)) {
  scope.def(name, method, anything<Arguments>()...);
}
template <class Scope, class Self, class Result, class... Arguments>
void define(Scope &scope, const char *name, Result (Self::*method)(Arguments...) const) {
  scope.def(name, method, anything<Arguments>()...);
}

/// The name of its type, for messages.
std::string kind_of(nb::handle value);

/// After a conversion of Python's that has failed, if it has: its exception makes room for
/// one that names the argument, unless it is no judgement of the value.
void forget_refusal();

/// TypeError unless `value` is an integer, ValueError unless it fits.
std::int32_t int32_argument(nb::handle value, const char *name);
std::int64_t int64_argument(nb::handle value, const char *name);

/// ValueError unless it fits.
template <class Out>
Out narrowed(std::int64_t value, const std::string &name) {
  const Out result = static_cast<Out>(value);
  if (result != value) {
    raise(PyExc_ValueError, name + " = " + std::to_string(value) + ": must fit " +
                                std::to_string(8 * sizeof(Out)) + " bits");
  }
  return result;
}

/// TypeError unless `value` is a number; 1-element tensors are numbers.
double float_argument(nb::handle value, const char *name);
float float32_argument(nb::handle value, const char *name);

/// TypeError unless `value` is a bool, Python's or another library's, or 0 or 1.
bool flag_argument(nb::handle value, const char *name);

/// A text that C code gets whole: TypeError unless `value` is one, ValueError with a
/// NUL inside and for what UTF-8 cannot spell.
std::string text_argument(nb::handle value, const char *name);

/// The same; nothing for None.
using Text = std::optional<std::string>;
Text optional_text_argument(nb::handle value, const char *name);

inline const char *pointer_or_null(const Text &text) { return text ? text->c_str() : nullptr; }

/// A number that the library reads by its address.
class FloatArgument {
 public:
  /// None leaves `field` NULL. TypeError unless it is a number.
  FloatArgument(nb::handle value, const char *name, const float *&field) {
    if (value.is_none()) return;
    value_ = float32_argument(value, name);
    field = &value_;
  }
  FloatArgument(const FloatArgument &) = delete;
  FloatArgument &operator=(const FloatArgument &) = delete;

 private:
  float value_ = 0;
};

/// Arguments that come by name, as constructors' do.
class NamedArguments {
 public:
  explicit NamedArguments(nb::kwargs given) : given_(std::move(given)) {}

  nb::object operator[](const char *name) const { return given_[name]; }
  std::int32_t int32(const char *name) const { return int32_argument((*this)[name], name); }
  std::int64_t int64(const char *name) const { return int64_argument((*this)[name], name); }
  double number(const char *name) const { return float_argument((*this)[name], name); }
  float float32(const char *name) const { return float32_argument((*this)[name], name); }
  bool has(const char *name) const { return given_.contains(name); }
  std::int32_t flag(const char *name) const { return flag_argument((*this)[name], name) ? 1 : 0; }
  Text optional_text(const char *name) const {
    return optional_text_argument((*this)[name], name);
  }

 private:
  nb::kwargs given_;
};

/// What all that is made for a model has of it.
template <class Config>
void read_head_dimensions(const NamedArguments &given, Config &config) {
  config.qk_nope_head_dim = given.int32("qk_nope_head_dim");
  config.qk_rope_head_dim = given.int32("qk_rope_head_dim");
  config.v_head_dim = given.int32("v_head_dim");
}

/// The same and what those that run have.
template <class Config>
void read_model(const NamedArguments &given, Config &config) {
  config.num_heads = given.int32("num_heads");
  config.scale = given.number("scale");
  config.kv_lora_rank = given.int32("kv_lora_rank");
  read_head_dimensions(given, config);
}

}  // namespace mla_python
