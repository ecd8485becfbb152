// Arguments of calls from Python, checked by name.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "calls.h"

namespace mla_python {

/// The name of its type, for messages.
std::string kind_of(nb::handle value);

/// TypeError unless `value` is an integer, ValueError unless it fits.
std::int32_t int32_argument(nb::handle value, const char *name);
std::int64_t int64_argument(nb::handle value, const char *name);

/// TypeError unless `value` is a number; 1-element tensors are numbers.
double float_argument(nb::handle value, const char *name);

/// Row offsets, lengths: a 1-d tensor or sequence of integers, copied.
/// TypeError for anything else, ValueError for what does not fit 32 bits.
std::vector<std::int32_t> int32_array_argument(nb::handle value, const char *name);

/// A NULL pointer for an empty vector: the library refuses it where it must not be empty.
inline const std::int32_t *pointer_or_null(const std::vector<std::int32_t> &values) {
  return values.empty() ? nullptr : values.data();
}

}  // namespace mla_python
