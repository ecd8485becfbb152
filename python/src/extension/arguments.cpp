#include "arguments.h"

#include <cstring>
#include <limits>
#include <string>

#include "dlpack.h"

namespace mla_python {

namespace {

std::int32_t narrowed(std::int64_t value, const std::string &name) {
  if (value < std::numeric_limits<std::int32_t>::min() ||
      value > std::numeric_limits<std::int32_t>::max()) {
    raise(PyExc_ValueError, name + " = " + std::to_string(value) + ": must fit 32 bits");
  }
  return static_cast<std::int32_t>(value);
}

template <class T>
std::vector<std::int32_t> gather(const char *first, std::int64_t count, std::int64_t step_bytes,
                                 const std::string &name) {
  std::vector<std::int32_t> values;
  values.reserve(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) {
    T value;
    std::memcpy(&value, first + i * step_bytes, sizeof value);
    values.push_back(narrowed(static_cast<std::int64_t>(value), name));
  }
  return values;
}

void require_one_dimension(std::int64_t dimensions, const char *name) {
  if (dimensions != 1) {
    raise(PyExc_ValueError, std::string(name) + ".ndim = " + std::to_string(dimensions) +
                                ": must be 1, one offset for each request and one for the end");
  }
}

/// Engines hand in int32 or int64 tensors; anything rarer goes one by one.
std::vector<std::int32_t> from_dlpack(nb::handle value, const char *name) {
  const DLPackBorrow borrow(value, name);
  const DLTensor &tensor = borrow.tensor();
  require_one_dimension(tensor.ndim, name);
  const bool is_integer = tensor.dtype.code == kDLInt && tensor.dtype.lanes == 1;
  const char *first = static_cast<const char *>(tensor.data) + tensor.byte_offset;
  const std::int64_t count = tensor.shape[0];
  const std::int64_t stride = tensor.strides ? tensor.strides[0] : 1;
  if (is_integer && tensor.dtype.bits == 32) {
    return gather<std::int32_t>(first, count, stride * 4, name);
  }
  if (is_integer && tensor.dtype.bits == 64) {
    return gather<std::int64_t>(first, count, stride * 8, name);
  }
  raise(PyExc_TypeError, std::string(name) + ": must hold int32 or int64");
}

std::vector<std::int32_t> from_sequence(nb::handle value, const char *name) {
  if (PyUnicode_Check(value.ptr()) || PyBytes_Check(value.ptr()) ||
      !PySequence_Check(value.ptr())) {
    raise(PyExc_TypeError, std::string(name) +
                               ": must be a tensor or sequence of integers, not " +
                               kind_of(value));
  }
  std::vector<std::int32_t> values;
  std::size_t index = 0;
  for (nb::handle item : nb::iter(value)) {
    const std::string item_name = std::string(name) + "[" + std::to_string(index++) + "]";
    values.push_back(int32_argument(item, item_name.c_str()));
  }
  return values;
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
  return narrowed(int64_argument(value, name), name);
}

double float_argument(nb::handle value, const char *name) {
  const nb::object number = nb::steal(PyNumber_Float(value.ptr()));
  if (!number.is_valid() || PyUnicode_Check(value.ptr())) {
    PyErr_Clear();
    raise(PyExc_TypeError, std::string(name) + ": must be a number, not " + kind_of(value));
  }
  return PyFloat_AsDouble(number.ptr());
}

std::vector<std::int32_t> int32_array_argument(nb::handle value, const char *name) {
  if (nb::hasattr(value, "__dlpack__")) return from_dlpack(value, name);
  return from_sequence(value, name);
}

}  // namespace mla_python
