#include "arguments.h"

#include <cstring>

#include "bindings.h"

namespace mla_python {

namespace {

bool is_text(nb::handle value) {
  return PyUnicode_Check(value.ptr()) || PyBytes_Check(value.ptr()) ||
         PyByteArray_Check(value.ptr());
}

}  // namespace

void forget_refusal() {
  if (PyErr_Occurred() && (!PyErr_ExceptionMatches(PyExc_Exception) ||
                           PyErr_ExceptionMatches(PyExc_MemoryError))) {
    throw nb::python_error();
  }
  PyErr_Clear();
}

std::string kind_of(nb::handle value) { return text_of(nb::getattr(value.type(), "__name__")); }

std::int64_t int64_argument(nb::handle value, const char *name) {
  const nb::object integer =
      nb::steal(stopping_at_the_end([&] { return PyNumber_Index(value.ptr()); }));
  if (!integer.is_valid() || PyBool_Check(value.ptr())) {
    forget_refusal();
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
  const nb::object number = nb::steal(stopping_at_the_end(
      [&] { return is_text(value) ? nullptr : PyNumber_Float(value.ptr()); }));
  if (number.is_valid()) return PyFloat_AsDouble(number.ptr());
  const bool overflows = PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_OverflowError);
  forget_refusal();
  if (overflows) raise(PyExc_ValueError, std::string(name) + ": must fit 64 bits");
  raise(PyExc_TypeError, std::string(name) + ": must be a number, not " + kind_of(value));
}

float float32_argument(nb::handle value, const char *name) {
  return static_cast<float>(float_argument(value, name));
}

bool flag_argument(nb::handle value, const char *name) {
  if (PyBool_Check(value.ptr())) return value.is(Py_True);
  const std::string kind = kind_of(value);
  // NumPy's bool is no integer of Python's.
  const bool is_bool = kind == "bool" || kind == "bool_";
  const nb::object integer = nb::steal(stopping_at_the_end([&] {
    return is_bool ? PyLong_FromLong(PyObject_IsTrue(value.ptr())) : PyNumber_Index(value.ptr());
  }));
  forget_refusal();
  int overflow = 0;
  const long long number =
      integer.is_valid() ? PyLong_AsLongLongAndOverflow(integer.ptr(), &overflow) : -1;
  if (overflow == 0 && (number == 0 || number == 1)) return number == 1;
  raise(PyExc_TypeError, std::string(name) + ": must be True or False, not " +
                             (integer.is_valid() ? text_of(integer) : kind));
}

std::string text_argument(nb::handle value, const char *name) {
  if (!PyUnicode_Check(value.ptr())) {
    raise(PyExc_TypeError, std::string(name) + ": must be a text, not " + kind_of(value));
  }
  Py_ssize_t size = 0;
  const char *bytes = PyUnicode_AsUTF8AndSize(value.ptr(), &size);
  if (!bytes) {
    forget_refusal();
    raise(PyExc_ValueError, std::string(name) + ": has characters that UTF-8 lacks");
  }
  if (std::memchr(bytes, 0, static_cast<std::size_t>(size))) {
    raise(PyExc_ValueError, std::string(name) + " = " +
                                text_of(nb::steal(PyObject_Repr(value.ptr()))) +
                                ": must not have a NUL inside");
  }
  return std::string(bytes, static_cast<std::size_t>(size));
}

Text optional_text_argument(nb::handle value, const char *name) {
  if (value.is_none()) return std::nullopt;
  return text_argument(value, name);
}

void bind_arguments(nb::module_ &module) {
  define(module, "integer", &int64_argument);
  define(module, "flag", &flag_argument);
  define(module, "text", +[](nb::handle value, const char *name) {
    text_argument(value, name);
    return nb::borrow(value);
  });
}

}  // namespace mla_python
