// A tensor handed in from Python, as the library reads it.
#pragma once

#include <string>

#include "calls.h"

namespace mla_python {

enum class Access { read, write };

/// What uint8 is taken for: caches of fp8 are often kept as bytes.
enum class Bytes { refused, fp8 };

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
  bool hold(nb::handle value);
  const Py_buffer &operator*() const { return buffer_; }

 private:
  /// `obj` is NULL while nothing is held.
  Py_buffer buffer_{};
};

/// A view of the object's own memory, which it keeps alive.
class TensorArgument {
 public:
  /// None makes an absent one: pointer() is NULL. Raises TypeError or ValueError
  /// that begin with `name`; shapes are the library's to judge.
  TensorArgument(nb::handle value, const char *name, Access access = Access::read,
                 Bytes bytes = Bytes::refused);

  const mla_tensor *pointer() const { return is_present_ ? &view_ : nullptr; }

 private:
  void read(nb::handle value, const char *name);
  void read_host_tensor(nb::handle value);
  bool read_buffer(nb::handle value, const char *name);
  void read_array_interface(nb::handle value, const char *name);
  void read_dlpack(nb::handle value, const char *name);
  void set_dtype(const std::string &dtype, const char *name);

  mla_tensor view_ = MLA_TENSOR_INIT;
  nb::object owner_;
  HeldBuffer buffer_;
  Bytes bytes_;
  bool is_present_ = false;
  bool is_read_only_ = false;
};

/// `describe(tensor, name)`: shape and type's name of what a run would read.
void bind_tensor_argument(nb::module_ &module);

}  // namespace mla_python
