// Tensors of any library's, where they are.
#pragma once

#include <algorithm>

#include "dlpack.h"

namespace mla_python {

/// What a tensor's producer says of its memory.
enum class Writing { allowed, forbidden, unknown };

/// Where a call's tensors must be. Those of a device must be ready in the order of the stream.
struct Place {
  std::int32_t device_type = MLA_DEVICE_CPU;
  std::int32_t device_id = 0;
  void *stream = nullptr;

  bool is_cpu() const { return device_type == MLA_DEVICE_CPU; }
};

/// `stream` None: the default one.
Place place_argument(std::int32_t device_type, std::int32_t device_id, nb::handle stream);

/// As DLPack numbers a stream: CUDA's default one is 1, which for others it is not.
inline std::int64_t dlpack_stream(const Place &place) {
  const std::int64_t number = reinterpret_cast<std::intptr_t>(place.stream);
  return number == 0 && place.device_type == MLA_DEVICE_CUDA ? 1 : number;
}

/// A tensor of the caller's, for as long as this lives. A capsule is kept, never consumed: its
/// own destructor gives the memory back.
class BorrowedTensor {
 public:
  BorrowedTensor() = default;
  BorrowedTensor(const BorrowedTensor &) = delete;
  BorrowedTensor &operator=(const BorrowedTensor &) = delete;
  ~BorrowedTensor() {
    if (has_buffer()) stopping_at_the_end([&] { PyBuffer_Release(&buffer_); });
  }

  /// By Python's buffer protocol, the quickest way to a NumPy array. False where there is no
  /// strided buffer or one of other elements than fp32, fp16 and signed integers.
  bool hold_buffer(nb::handle value);
  bool has_buffer() const { return buffer_.obj != nullptr; }
  /// By DLPack, as torch's tensors come.
  bool has_capsule() const { return capsule_.is_valid(); }

  /// By the exchange API of the object's type, which runs no Python code: torch has one. False
  /// where there is none or it refuses: `ask` tells why. ValueErrors as `ask`.
  bool exchange(nb::handle value, const char *name, const Place &place = {});

  /// By the object's `__dlpack__`. ValueError that begins with `name` where the object is not
  /// in its place or refuses, TypeError where it does not speak DLPack.
  void ask(nb::handle value, const char *name, const Place &place = {});

  void *data() const { return data_; }
  const DLDataType &type() const { return type_; }
  std::int64_t ndim() const { return ndim_; }
  /// Of the first dimensions, as many as a tensor of the library's has.
  std::int64_t size(std::int64_t dimension) const { return shape_[dimension]; }
  std::int64_t stride(std::int64_t dimension) const { return strides_[dimension]; }
  /// Strides are in so many bytes.
  std::int64_t stride_unit() const { return stride_unit_; }
  /// Unknown of capsules from before version 1: to JAX, whose are, all are read-only.
  Writing writing() const { return writing_; }

 private:
  void open_capsule(nb::handle value, const char *name, const Place &place);

  template <class Integer>
  void set_shape(std::int64_t ndim, const Integer *shape, const Integer *strides) {
    ndim_ = ndim;
    std::int64_t dense = 1;
    for (std::int64_t i = std::min<std::int64_t>(ndim, MLA_MAX_NDIM) - 1; i >= 0; --i) {
      shape_[i] = shape[i];
      strides_[i] = strides ? strides[i] : dense;
      dense *= shape[i];
    }
  }

  /// `obj` is NULL while nothing is held.
  Py_buffer buffer_{};
  nb::object capsule_;
  void *data_ = nullptr;
  DLDataType type_{};
  std::int64_t ndim_ = 0;
  std::int64_t shape_[MLA_MAX_NDIM] = {};
  std::int64_t strides_[MLA_MAX_NDIM] = {};
  std::int64_t stride_unit_ = 1;
  Writing writing_ = Writing::unknown;
};

}  // namespace mla_python
