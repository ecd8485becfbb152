// Arguments of calls from Python, checked by name.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "calls.h"

namespace mla_python {

/// A parameter that takes whatever it is handed: the call judges it, by its name.
inline auto anything(const char *name) { return nb::arg(name).none(); }

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
  /// None makes an absent one: pointer() is NULL. TypeError unless it is a number.
  FloatArgument(nb::handle value, const char *name)
      : is_present_(!value.is_none()), value_(is_present_ ? float32_argument(value, name) : 0) {}

  const float *pointer() const { return is_present_ ? &value_ : nullptr; }

 private:
  bool is_present_;
  float value_;
};

/// `integer`, `flag`, `text` (value, name): the same for the package's Python code.
void bind_arguments(nb::module_ &module);

}  // namespace mla_python
