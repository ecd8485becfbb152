// The memory of an object that has Python's buffer protocol.
#pragma once

#include "calls.h"

namespace mla_python {

/// A buffer, given back with the object that holds it.
class HeldBuffer {
 public:
  HeldBuffer() = default;
  HeldBuffer(const HeldBuffer &) = delete;
  HeldBuffer &operator=(const HeldBuffer &) = delete;
  ~HeldBuffer() {
    if (buffer_.obj) PyBuffer_Release(&buffer_);
  }

  /// False where the object has no strided buffer.
  bool hold(nb::handle value) {
    if (!PyObject_CheckBuffer(value.ptr())) return false;
    if (PyObject_GetBuffer(value.ptr(), &buffer_, PyBUF_STRIDED_RO | PyBUF_FORMAT) == 0) {
      return true;
    }
    PyErr_Clear();
    return false;
  }
  bool is_held() const { return buffer_.obj != nullptr; }
  const Py_buffer &operator*() const { return buffer_; }
  const Py_buffer *operator->() const { return &buffer_; }

 private:
  /// `obj` is NULL while nothing is held.
  Py_buffer buffer_{};
};

}  // namespace mla_python
