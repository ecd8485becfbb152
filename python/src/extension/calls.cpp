#include "calls.h"

#include <atomic>
#include <exception>
#include <new>
#include <utility>

namespace mla_python {

namespace {

thread_local LibraryCall *current_call = nullptr;
std::atomic<bool> ended{false};

PyObject *exception_type(mla_status status) {
  switch (status) {
    case MLA_ERROR_INVALID_ARGUMENT:
    case MLA_ERROR_UNSUPPORTED_CONFIGURATION:
    case MLA_ERROR_UNSUPPORTED_HARDWARE:
    case MLA_ERROR_NOT_REGISTERED:
      return PyExc_ValueError;
    case MLA_ERROR_OUT_OF_MEMORY:
      return PyExc_MemoryError;
    default:
      return PyExc_RuntimeError;
  }
}

mla_status status_of(nb::handle exception) {
  const std::pair<PyObject *, mla_status> statuses[] = {
      {PyExc_ValueError, MLA_ERROR_INVALID_ARGUMENT},
      {PyExc_TypeError, MLA_ERROR_INVALID_ARGUMENT},
      {PyExc_NotImplementedError, MLA_ERROR_UNSUPPORTED_CONFIGURATION},
      {PyExc_ImportError, MLA_ERROR_UNSUPPORTED_HARDWARE},
      {PyExc_MemoryError, MLA_ERROR_OUT_OF_MEMORY},
  };
  for (const auto &[type, status] : statuses) {
    if (PyErr_GivenExceptionMatches(exception.ptr(), type)) return status;
  }
  return MLA_ERROR_INTERNAL;
}

std::string describe(nb::handle exception) {
  return text_of(nb::getattr(exception.type(), "__name__")) + ": " + c_text_of(exception);
}

}  // namespace

nb::handle interned(const char *name) {
  PyObject *text = PyUnicode_InternFromString(name);
  if (!text) throw nb::python_error();
  return text;
}

nb::str text_of(const std::string &text) {
  PyObject *decoded = PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()),
                                           "replace");
  if (!decoded) throw nb::python_error();
  return nb::steal<nb::str>(decoded);
}

std::string text_of(nb::handle value) {
  const nb::object text = nb::steal(stopping_at_the_end([&] { return PyObject_Str(value.ptr()); }));
  Py_ssize_t size = 0;
  const char *bytes = text.is_valid() ? PyUnicode_AsUTF8AndSize(text.ptr(), &size) : nullptr;
  if (bytes) return std::string(bytes, static_cast<std::size_t>(size));
  PyErr_Clear();
  return "?";
}

std::string c_text_of(nb::handle value) {
  std::string text = text_of(value);
  for (std::size_t nul; (nul = text.find('\0')) != std::string::npos;) {
    text.replace(nul, 1, "\uFFFD");
  }
  return text;
}

bool is_interruption(nb::handle exception) {
  return !PyErr_GivenExceptionMatches(exception.ptr(), PyExc_Exception);
}

void raise(PyObject *type, const std::string &text) {
  PyErr_SetObject(type, text_of(text).ptr());
  throw nb::python_error();
}

LibraryCall::LibraryCall() noexcept : outer_(current_call) { current_call = this; }

LibraryCall::~LibraryCall() { current_call = outer_; }

void LibraryCall::leave(nb::object exception) noexcept {
  if (!current_call) return;
  nb::object &left = current_call->exception_;
  if (!left.is_valid() || !is_interruption(left)) left = std::move(exception);
}

void LibraryCall::raise_left_behind() {
  if (!exception_.is_valid()) return;
  nb::object exception = std::move(exception_);
  PyErr_SetObject(exception.type().ptr(), exception.ptr());
  throw nb::python_error();
}

void LibraryCall::raise_interruption() {
  if (exception_.is_valid() && is_interruption(exception_)) raise_left_behind();
}

void LibraryCall::fail(mla_status status) {
  raise_left_behind();
  raise(exception_type(status), mla_last_error_message());
}

void interpreter_is_ending() noexcept { ended.store(true); }

bool interpreter_has_ended() noexcept { return ended.load() || !Py_IsInitialized(); }

mla_status leave_current_exception() noexcept {
  try {
    try {
      throw;
    } catch (nb::python_error &error) {
      const nb::object exception = nb::borrow(error.value());
      LibraryCall::leave(exception);
      mla_set_last_error_message(describe(exception).c_str());
      return status_of(exception);
    }
  } catch (const std::bad_alloc &) {
    mla_set_last_error_message("a Python backend had no memory");
    return MLA_ERROR_OUT_OF_MEMORY;
  } catch (const std::exception &error) {
    mla_set_last_error_message(error.what());
  } catch (...) {
    mla_set_last_error_message("unknown C++ exception in a Python backend");
  }
  return MLA_ERROR_INTERNAL;
}

}  // namespace mla_python
