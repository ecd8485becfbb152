#include "borrowed_tensor.h"

#include <cstring>
#include <string>

#include "arguments.h"
#include "torch_tensors.h"

namespace mla_python {

namespace {

/// What DLPack's exchange API begins with.
struct ExchangeApi {
  DLPackVersion version;
  const ExchangeApi *previous;
  void *allocate;
  int (*export_tensor)(void *object, DLManagedTensorVersioned **managed);
};

const ExchangeApi *exchange_api(nb::handle type) {
  constexpr const char *capsule_name = "dlpack_exchange_api";
  static const nb::handle attribute = interned("__dlpack_c_exchange_api__");
  const nb::object capsule = nb::getattr(type, attribute, nb::none());
  if (!PyCapsule_IsValid(capsule.ptr(), capsule_name)) return nullptr;
  const auto *api =
      static_cast<const ExchangeApi *>(PyCapsule_GetPointer(capsule.ptr(), capsule_name));
  return api->version.major == dlpack_major_version ? api : nullptr;
}

/// Of no bits where it is none that is taken: of floats only in the form that NumPy gives them.
DLDataType element_type(const Py_buffer &buffer) {
  const char *format = buffer.format ? buffer.format : "B";
  const auto bits = static_cast<std::uint8_t>(8 * buffer.itemsize);
  if (std::strcmp(format, "f") == 0 || std::strcmp(format, "e") == 0) return {kDLFloat, bits, 1};
  if (*format && std::strchr("@=<", *format)) ++format;
  const bool is_integer = *format && std::strchr("ilqn", *format) && format[1] == 0;
  return is_integer ? DLDataType{kDLInt, bits, 1} : DLDataType{};
}

void require_place(const Place &place, std::int64_t type, std::int64_t id, nb::handle value,
                   const char *name) {
  if (type == place.device_type && (place.is_cpu() || id == place.device_id)) return;
  std::string device = "DLPack type " + std::to_string(type);
  if (nb::hasattr(value, "device")) device = text_of(nb::getattr(value, "device"));
  raise(PyExc_ValueError,
        std::string(name) + ".device = " + device + ": must be " +
            (place.is_cpu() ? "the CPU"
                            : "DLPack type " + std::to_string(place.device_type) + ", id " +
                                  std::to_string(place.device_id) + ", the device of this call"));
}

/// What an object answers; its refusal names the argument.
template <class Ask>
nb::object answer(const char *name, Ask ask) {
  try {
    return ask();
  } catch (nb::python_error &error) {
    if (is_interruption(error.value())) throw;
    const std::string said = text_of(error.value());
    nb::raise_from(error, PyExc_ValueError, "%s: %s", name, said.c_str());
  }
}

/// Before anything is exported: that may move memory between devices.
void require_place(const Place &place, nb::handle value, const char *name) {
  const auto part_of = [&](const nb::object &device, int place_in_pair) {
    return answer(name, [&] { return nb::object(device[place_in_pair]); });
  };
  const nb::object device = answer(name, [&] { return call_method(value, "__dlpack_device__"); });
  const std::int64_t type = int64_argument(part_of(device, 0), name);
  const std::int64_t id = place.is_cpu() ? 0 : int64_argument(part_of(device, 1), name);
  require_place(place, type, id, value, name);
}

nb::object exported(nb::handle value, const Place &place) {
  nb::dict keywords;
  if (!place.is_cpu()) keywords["stream"] = dlpack_stream(place);
  try {
    keywords["max_version"] = nb::make_tuple(dlpack_major_version, 0);
    return called(nb::getattr(value, "__dlpack__"), nb::tuple(), keywords);
  } catch (nb::python_error &error) {
    // Producers of before version 1 know no keyword.
    if (!error.matches(PyExc_TypeError)) throw;
  }
  if (place.is_cpu()) return call_method(value, "__dlpack__");
  PyDict_DelItemString(keywords.ptr(), "max_version");
  return called(nb::getattr(value, "__dlpack__"), nb::tuple(), keywords);
}

}  // namespace

Place place_argument(std::int32_t device_type, std::int32_t device_id, nb::handle stream) {
  Place place{device_type, device_id, nullptr};
  if (!stream.is_none()) {
    place.stream =
        reinterpret_cast<void *>(static_cast<std::intptr_t>(int64_argument(stream, "stream")));
  }
  return place;
}

bool BorrowedTensor::hold_buffer(nb::handle value) {
  if (!PyObject_CheckBuffer(value.ptr())) return false;
  // Since Python 3.12 a class may be asked.
  if (stopping_at_the_end([&] {
        return PyObject_GetBuffer(value.ptr(), &buffer_, PyBUF_STRIDED_RO | PyBUF_FORMAT);
      }) != 0) {
    forget_refusal();
    return false;
  }
  type_ = element_type(buffer_);
  if (type_.bits == 0) return false;
  data_ = buffer_.buf;
  writing_ = buffer_.readonly ? Writing::forbidden : Writing::allowed;
  // ctypes' arrays have none, though they are asked for.
  stride_unit_ = buffer_.strides ? 1 : buffer_.itemsize;
  set_shape(buffer_.ndim, buffer_.shape, buffer_.strides);
  return true;
}

bool BorrowedTensor::exchange(nb::handle value, const char *name, const Place &place) {
  const ExchangeApi *api = exchange_api(value.type());
  if (!api) return false;
  require_plain_numbers(value, name);
  DLManagedTensorVersioned *managed = nullptr;
  if (stopping_at_the_end([&] { return api->export_tensor(value.ptr(), &managed); }) != 0) {
    forget_refusal();
    return false;
  }
  capsule_ = capsule_of(managed);
  open_capsule(value, name, place);
  return true;
}

void BorrowedTensor::ask(nb::handle value, const char *name, const Place &place) {
  const nb::object torch = torch_of(value);
  if (torch.is_valid()) {
    require_plain_numbers(value, name);
    require_untransformed(value, name);
    // Of torch before its exchange API, too: its __dlpack__ takes ten times as long. The
    // capsule is an old one, but torch has no read-only tensors to tell apart.
    writing_ = Writing::allowed;
    const nb::object dlpack = torch.attr("utils").attr("dlpack");
    capsule_ = answer(name, [&] { return call_method(dlpack, "to_dlpack", value); });
  } else {
    require_place(place, value, name);
    writing_ = Writing::unknown;
    capsule_ = answer(name, [&] { return exported(value, place); });
  }
  open_capsule(value, name, place);
}

void BorrowedTensor::open_capsule(nb::handle value, const char *name, const Place &place) {
  const DLTensor *tensor = nullptr;
  if (const auto *managed = managed_of<DLManagedTensorVersioned>(capsule_)) {
    if (managed->version.major > dlpack_major_version) {
      raise(PyExc_ValueError, std::string(name) + ": its DLPack version is too new");
    }
    tensor = &managed->dl_tensor;
    writing_ = managed->flags & kDLReadOnly ? Writing::forbidden : Writing::allowed;
  } else if (const auto *managed = managed_of<DLManagedTensor>(capsule_)) {
    tensor = &managed->dl_tensor;
  } else {
    raise(PyExc_TypeError, std::string(name) + ": its __dlpack__ gave no DLPack capsule");
  }
  require_place(place, tensor->device.device_type, tensor->device.device_id, value, name);
  data_ = tensor->data ? static_cast<char *>(tensor->data) + tensor->byte_offset : nullptr;
  type_ = tensor->dtype;
  stride_unit_ = type_.bits / 8;
  set_shape(tensor->ndim, tensor->shape, tensor->strides);
}

}  // namespace mla_python
