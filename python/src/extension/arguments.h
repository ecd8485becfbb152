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
float float32_argument(nb::handle value, const char *name);

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

/// Row offsets, lengths: a 1-d tensor or sequence of integers, copied.
/// TypeError for anything else, ValueError for what does not fit 32 bits.
std::vector<std::int32_t> int32_array_argument(nb::handle value, const char *name);

/// The same of 64 bits: slots.
std::vector<std::int64_t> int64_array_argument(nb::handle value, const char *name);

/// A NULL pointer for an empty vector: the library refuses it where it must not be empty.
template <class T>
const T *pointer_or_null(const std::vector<T> &values) {
  return values.empty() ? nullptr : values.data();
}

/// A row of block numbers for each request: a 2-d tensor, of which int32 is read in
/// place and int64 copied, or a sequence of sequences, shorter ones filled with -1.
class TableArgument {
 public:
  /// None makes an absent one: data() is NULL. TypeError, or ValueError for what
  /// does not fit 32 bits and for less than `min_rows` rows.
  TableArgument(nb::handle value, const char *name, std::int64_t min_rows);
  TableArgument(const TableArgument &) = delete;
  TableArgument &operator=(const TableArgument &) = delete;

  const std::int32_t *data() const { return data_; }
  std::int64_t row_stride() const { return row_stride_; }
  std::int32_t columns() const { return columns_; }

 private:
  void read_dlpack(nb::handle value, const char *name);
  void read_sequence(nb::handle value, const char *name);

  const std::int32_t *data_ = nullptr;
  std::int64_t rows_ = 0;
  std::int64_t row_stride_ = 0;
  std::int32_t columns_ = 0;
  nb::object owner_;
  std::vector<std::int32_t> copy_;
};

}  // namespace mla_python
