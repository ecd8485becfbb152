#include "arguments.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "dlpack.h"

namespace mla_python {

namespace {

template <class Out>
Out narrowed(std::int64_t value, const std::string &name) {
  const Out result = static_cast<Out>(value);
  if (result != value) {
    raise(PyExc_ValueError, name + " = " + std::to_string(value) + ": must fit " +
                                std::to_string(8 * sizeof(Out)) + " bits");
  }
  return result;
}

bool is_integer(const DLTensor &tensor, int bits) {
  return tensor.dtype.code == kDLInt && tensor.dtype.lanes == 1 && tensor.dtype.bits == bits;
}

const char *first_element(const DLTensor &tensor) {
  return static_cast<const char *>(tensor.data) + tensor.byte_offset;
}

/// In elements.
std::int64_t stride_of(const DLTensor &tensor, int dimension) {
  if (tensor.strides) return tensor.strides[dimension];
  std::int64_t dense = 1;
  for (int i = dimension + 1; i < tensor.ndim; ++i) dense *= tensor.shape[i];
  return dense;
}

template <class Out, class In>
void gather(const char *first, std::int64_t count, std::int64_t step, const std::string &name,
            std::vector<Out> &values) {
  for (std::int64_t i = 0; i < count; ++i) {
    In value;
    std::memcpy(&value, first + i * step * static_cast<std::int64_t>(sizeof value), sizeof value);
    values.push_back(narrowed<Out>(value, name));
  }
}

/// Appends `count` elements. Engines hand in int32 or int64 tensors; anything rarer
/// goes one by one.
template <class Out>
void append(const DLTensor &tensor, std::int64_t offset, std::int64_t count, std::int64_t step,
            const char *name, std::vector<Out> &values) {
  const char *first = first_element(tensor);
  if (is_integer(tensor, 32)) {
    gather<Out, std::int32_t>(first + offset * 4, count, step, name, values);
  } else if (is_integer(tensor, 64)) {
    gather<Out, std::int64_t>(first + offset * 8, count, step, name, values);
  } else {
    raise(PyExc_TypeError, std::string(name) + ": must hold int32 or int64");
  }
}

void require_dimensions(const DLTensor &tensor, int dimensions, const char *name,
                        const char *meaning) {
  if (tensor.ndim != dimensions) {
    raise(PyExc_ValueError, std::string(name) + ".ndim = " + std::to_string(tensor.ndim) +
                                ": must be " + std::to_string(dimensions) + ", " + meaning);
  }
}

template <class Out>
std::vector<Out> from_dlpack(nb::handle value, const char *name) {
  const DLPackBorrow borrow(value, name);
  const DLTensor &tensor = borrow.tensor();
  require_dimensions(tensor, 1, name, "a list of numbers");
  std::vector<Out> values;
  values.reserve(static_cast<std::size_t>(tensor.shape[0]));
  append(tensor, 0, tensor.shape[0], stride_of(tensor, 0), name, values);
  return values;
}

void require_sequence(nb::handle value, const char *name) {
  if (PyUnicode_Check(value.ptr()) || PyBytes_Check(value.ptr()) ||
      !PySequence_Check(value.ptr())) {
    raise(PyExc_TypeError, std::string(name) +
                               ": must be a tensor or sequence of integers, not " +
                               kind_of(value));
  }
}

template <class Out>
std::vector<Out> from_sequence(nb::handle value, const char *name) {
  require_sequence(value, name);
  std::vector<Out> values;
  std::size_t index = 0;
  for (nb::handle item : nb::iter(value)) {
    const std::string item_name = std::string(name) + "[" + std::to_string(index++) + "]";
    values.push_back(narrowed<Out>(int64_argument(item, item_name.c_str()), item_name));
  }
  return values;
}

template <class Out>
std::vector<Out> array_argument(nb::handle value, const char *name) {
  if (nb::hasattr(value, "__dlpack__")) return from_dlpack<Out>(value, name);
  return from_sequence<Out>(value, name);
}

}  // namespace

std::string kind_of(nb::handle value) { return text_of(nb::getattr(value.type(), "__name__")); }

std::int64_t int64_argument(nb::handle value, const char *name) {
  nb::object integer = nb::steal(PyNumber_Index(value.ptr()));
  if (!integer.is_valid() || PyBool_Check(value.ptr())) {
    PyErr_Clear();
    raise(PyExc_TypeError, std::string(name) + ": must be an integer, not " + kind_of(value));
  }
  int overflow = 0;
  const long long result = PyLong_AsLongLongAndOverflow(integer.ptr(), &overflow);
  if (overflow != 0) raise(PyExc_ValueError, std::string(name) + ": must fit 64 bits");
  return result;
}

std::int32_t int32_argument(nb::handle value, const char *name) {
  return narrowed<std::int32_t>(int64_argument(value, name), name);
}

double float_argument(nb::handle value, const char *name) {
  const nb::object number = nb::steal(PyNumber_Float(value.ptr()));
  if (!number.is_valid() || PyUnicode_Check(value.ptr())) {
    PyErr_Clear();
    raise(PyExc_TypeError, std::string(name) + ": must be a number, not " + kind_of(value));
  }
  return PyFloat_AsDouble(number.ptr());
}

float float32_argument(nb::handle value, const char *name) {
  return static_cast<float>(float_argument(value, name));
}

std::vector<std::int32_t> int32_array_argument(nb::handle value, const char *name) {
  return array_argument<std::int32_t>(value, name);
}

std::vector<std::int64_t> int64_array_argument(nb::handle value, const char *name) {
  return array_argument<std::int64_t>(value, name);
}

TableArgument::TableArgument(nb::handle value, const char *name, std::int64_t min_rows) {
  if (value.is_none()) return;
  if (nb::hasattr(value, "__dlpack__")) {
    read_dlpack(value, name);
  } else {
    read_sequence(value, name);
  }
  if (rows_ < min_rows) {
    raise(PyExc_ValueError, std::string(name) + ": has " + std::to_string(rows_) +
                                " rows, must have one for each of the " +
                                std::to_string(min_rows) + " requests");
  }
  if (copy_.empty()) return;
  data_ = copy_.data();
  row_stride_ = columns_;
}

void TableArgument::read_dlpack(nb::handle value, const char *name) {
  const DLPackBorrow borrow(value, name);
  const DLTensor &tensor = borrow.tensor();
  require_dimensions(tensor, 2, name, "a row for each request");
  rows_ = tensor.shape[0];
  columns_ = narrowed<std::int32_t>(tensor.shape[1], std::string(name) + ".shape[1]");
  const std::int64_t row_stride = stride_of(tensor, 0), step = stride_of(tensor, 1);
  if (is_integer(tensor, 32) && (step == 1 || columns_ < 2) && row_stride >= columns_) {
    data_ = reinterpret_cast<const std::int32_t *>(first_element(tensor));
    row_stride_ = row_stride;
    owner_ = borrow.capsule();
    return;
  }
  copy_.reserve(static_cast<std::size_t>(rows_ * columns_));
  for (std::int64_t row = 0; row < rows_; ++row) {
    append(tensor, row * row_stride, columns_, step, name, copy_);
  }
}

void TableArgument::read_sequence(nb::handle value, const char *name) {
  require_sequence(value, name);
  std::vector<std::vector<std::int32_t>> rows;
  std::size_t longest = 0;
  for (nb::handle item : nb::iter(value)) {
    const std::string row_name = std::string(name) + "[" + std::to_string(rows.size()) + "]";
    rows.push_back(array_argument<std::int32_t>(item, row_name.c_str()));
    longest = std::max(longest, rows.back().size());
  }
  rows_ = static_cast<std::int64_t>(rows.size());
  columns_ = narrowed<std::int32_t>(static_cast<std::int64_t>(longest), name);
  for (std::vector<std::int32_t> &row : rows) {
    row.resize(longest, -1);
    copy_.insert(copy_.end(), row.begin(), row.end());
  }
}

}  // namespace mla_python
