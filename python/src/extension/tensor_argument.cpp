#include "tensor_argument.h"

#include <nanobind/stl/string.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>

#include "arguments.h"
#include "bindings.h"
#include "host_tensor.h"
#include "torch_tensors.h"

namespace mla_python {

namespace {

constexpr const char *malformed = ": its description of itself is malformed";

std::string dlpack_dtype_name(const DLDataType &type) {
  if (type.lanes == 1) {
    const std::string bits = std::to_string(type.bits);
    switch (type.code) {
      case kDLInt: return "int" + bits;
      case kDLUInt: return "uint" + bits;
      case kDLFloat: return "float" + bits;
      case kDLBfloat: return "bfloat" + bits;
      case kDLFloat8_e4m3fn: return "float8_e4m3fn";
      case kDLFloat8_e8m0fnu: return "float8_e8m0fnu";
      default: break;
    }
  }
  return "DLPack type " + std::to_string(type.code);
}

/// A tensor of too many dimensions keeps their number: the library names the rule.
std::int32_t described_dimensions(std::int64_t ndim) {
  return static_cast<std::int32_t>(ndim < MLA_MAX_NDIM ? ndim : MLA_MAX_NDIM);
}

/// Where there is but one element, NumPy's stride may be anything.
std::int64_t element_stride(std::int64_t bytes, std::int64_t element, std::int64_t size,
                            const char *name) {
  if (size > 1 && bytes % element != 0) {
    raise(PyExc_ValueError, std::string(name) + ".strides: " + std::to_string(bytes) +
                                " bytes are no multiple of an element's " +
                                std::to_string(element));
  }
  return bytes / element;
}

bool is_number(nb::handle value) {
  return PyFloat_Check(value.ptr()) || (PyLong_Check(value.ptr()) && !PyBool_Check(value.ptr()));
}

}  // namespace

TensorArgument::TensorArgument(nb::handle value, const char *name, const mla_tensor *&field,
                               const Role &role, const Place &place)
    : role_(role) {
  if (value.is_none()) return;
  field = &view_;
  try {
    read(value, name, place);
  } catch (nb::cast_error &) {
    raise(PyExc_TypeError, std::string(name) + malformed);
  } catch (nb::python_error &error) {
    // A part that its __array_interface__ lacks.
    if (!error.matches(PyExc_LookupError) && !error.matches(PyExc_AttributeError)) throw;
    const std::string text = std::string(name) + malformed;
    nb::raise_from(error, PyExc_TypeError, "%s", text.c_str());
  }
  if (role.takes_number && view_.ndim == 0) {
    view_.ndim = 1;
    view_.shape[0] = view_.strides[0] = 1;
  }
  if (!role.is_output) return;
  if (memory_.has_capsule()) require_unrecorded(name);
  if (writing_ == Writing::allowed) return;
  raise(PyExc_ValueError, std::string(name) +
                              (writing_ == Writing::forbidden
                                   ? ": is read-only, must be writable"
                                   : ": may be immutable, its DLPack of before version 1 cannot "
                                     "tell; must be writable, as torch's and numpy's tensors are"));
}

void TensorArgument::drop_heads() {
  if (view_.ndim != 4 || view_.shape[2] != 1) return;
  view_.ndim = 3;
  view_.shape[2] = view_.shape[3];
  view_.strides[2] = view_.strides[3];
}

void TensorArgument::clear_rows_from(std::int64_t row) {
  if (!is_ours_to_write() || view_.ndim != 3 || row < 0 || row >= view_.shape[0]) return;
  const std::int64_t row_bytes = view_.shape[1] * view_.shape[2] * dtype_bytes(view_.dtype);
  std::memset(static_cast<char *>(view_.data) + row * row_bytes, 0,
              static_cast<std::size_t>((view_.shape[0] - row) * row_bytes));
}

void TensorArgument::clear_tokens_from(std::int64_t token) {
  if (!is_ours_to_write() || view_.ndim != 2 || view_.dtype != MLA_DTYPE_FLOAT32 || token < 0) return;
  for (std::int64_t head = 0; token < view_.shape[1] && head < view_.shape[0]; ++head) {
    float *entries = static_cast<float *>(view_.data) + head * view_.shape[1];
    std::fill(entries + token, entries + view_.shape[1], -HUGE_VALF);
  }
}

bool TensorArgument::is_ours_to_write() const {
  return view_.data && view_.device_type == MLA_DEVICE_CPU;
}

void TensorArgument::read(nb::handle value, const char *name, const Place &place) {
  if (role_.takes_number && is_number(value)) {
    read_number(value, name);
  } else if (nb::isinstance<HostTensor>(value)) {
    read_host_tensor(value);
  } else if ((place.is_cpu() && memory_.hold_buffer(value) &&
              memory_.type().code == kDLFloat) ||
             memory_.exchange(value, name, place)) {
    // First: to ask torch's tensors for attributes that they lack takes longer than the rest.
    read_memory(value, name);
  } else if (place.is_cpu() && !PyType_Check(value.ptr()) &&
             nb::hasattr(value, "__array_interface__")) {
    read_array_interface(value, name);
  } else if (!PyType_Check(value.ptr()) && nb::hasattr(value, "__dlpack__")) {
    memory_.ask(value, name, place);
    read_memory(value, name);
  } else {
    raise(PyExc_TypeError, std::string(name) + ": must be " +
                               (role_.takes_number ? "a number or " : "") +
                               "a tensor (torch's, numpy's or any with __dlpack__), not " +
                               kind_of(value));
  }
  if (!memory_.has_capsule()) return;
  view_.device_type = place.device_type;
  view_.device_id = place.is_cpu() ? 0 : place.device_id;
}

void TensorArgument::read_number(nb::handle value, const char *name) {
  number_ = float32_argument(value, name);
  view_.dtype = MLA_DTYPE_FLOAT32;
  view_.data = &number_;
}

void TensorArgument::read_host_tensor(nb::handle value) {
  const HostTensor &tensor = nb::cast<HostTensor &>(value);
  view_ = tensor.view();
  writing_ = tensor.is_read_only() ? Writing::forbidden : Writing::allowed;
  owner_ = nb::borrow(value);
}

void TensorArgument::read_memory(nb::handle value, const char *name) {
  const DLDataType &type = memory_.type();
  const bool is_fp8_of_bytes = role_.takes_uint8 && type == DLDataType{kDLUInt, 8, 1};
  view_.dtype = is_fp8_of_bytes ? MLA_DTYPE_FLOAT8_E4M3FN : dtype_of(type);
  if (view_.dtype == MLA_DTYPE_NONE) refuse_dtype(value, dlpack_dtype_name(type), name);
  view_.data = memory_.data();
  writing_ = memory_.writing();
  view_.ndim = static_cast<std::int32_t>(memory_.ndim());
  const std::int64_t element = dtype_bytes(view_.dtype) / memory_.stride_unit();
  for (std::int32_t i = 0; i < described_dimensions(view_.ndim); ++i) {
    view_.shape[i] = memory_.size(i);
    view_.strides[i] = element_stride(memory_.stride(i), element, view_.shape[i], name);
  }
}

/// NumPy's own form: unlike its DLPack it has ml_dtypes' formats and arrays that
/// are read-only.
void TensorArgument::read_array_interface(nb::handle value, const char *name) {
  const nb::dict interface = nb::cast<nb::dict>(value.attr("__array_interface__"));
  const std::string typestr = text_of(interface["typestr"]);
  const std::string dtype = text_of(nb::getattr(nb::getattr(value, "dtype"), "name"));
  if (typestr[0] == '>') raise(PyExc_TypeError, std::string(name) + ": is big-endian");
  const bool is_fp8_of_bytes = role_.takes_uint8 && dtype == "uint8";
  view_.dtype = is_fp8_of_bytes ? MLA_DTYPE_FLOAT8_E4M3FN : dtype_of_name(dtype);
  if (view_.dtype == MLA_DTYPE_NONE) refuse_dtype(value, dtype, name);
  const nb::tuple data = nb::cast<nb::tuple>(interface["data"]);
  view_.data = reinterpret_cast<void *>(nb::cast<std::uintptr_t>(data[0]));
  writing_ = nb::cast<bool>(data[1]) ? Writing::forbidden : Writing::allowed;
  const nb::tuple shape = nb::cast<nb::tuple>(interface["shape"]);
  const nb::object strides =
      interface.contains("strides") ? nb::object(interface["strides"]) : nb::none();
  const std::int64_t element = dtype_bytes(view_.dtype);
  std::int64_t dense = 1;
  view_.ndim = static_cast<std::int32_t>(shape.size());
  for (std::int32_t i = described_dimensions(view_.ndim) - 1; i >= 0; --i) {
    const auto place = static_cast<std::size_t>(i);
    view_.shape[i] = nb::cast<std::int64_t>(shape[place]);
    view_.strides[i] = strides.is_none()
                           ? dense
                           : element_stride(nb::cast<std::int64_t>(strides[place]), element,
                                            view_.shape[i], name);
    dense *= view_.shape[i];
  }
  owner_ = nb::borrow(value);
}

void TensorArgument::refuse_dtype(nb::handle value, const std::string &dtype,
                                  const char *name) const {
  // As its own library calls it.
  const nb::object own = nb::getattr(value, "dtype", nb::none());
  raise(PyExc_TypeError, std::string(name) + ".dtype = " +
                             (own.is_none() ? dtype : text_of(own)) + ": must be " + role_.types);
}

namespace {

nb::tuple describe(nb::handle value, const char *name) {
  const mla_tensor *view = nullptr;
  const TensorArgument argument(value, name, view);
  if (!view) raise(PyExc_TypeError, std::string(name) + ": must be a tensor, not None");
  return nb::make_tuple(nb::tuple(list_of(view->shape, described_dimensions(view->ndim))),
                        dtype_name(view->dtype));
}

}  // namespace

void bind_tensor_argument(nb::module_ &module) {
  define(module, "describe", &describe);
}

}  // namespace mla_python
