#include "dlpack.h"

#include <string>

namespace mla_python {

namespace {

constexpr int newest_version = 1;

/// Raises ValueError(name: what the object said), from its own exception.
[[noreturn]] void refuse(nb::python_error &error, const char *name) {
  const std::string said = text_of(error.value());
  nb::raise_from(error, PyExc_ValueError, "%s: %s", name, said.c_str());
}

void require_cpu(nb::handle value, const char *name) {
  std::int64_t type = 0;
  try {
    const nb::object device = value.attr("__dlpack_device__")();
    type = nb::cast<std::int64_t>(device[0]);
  } catch (nb::python_error &error) {
    refuse(error, name);
  } catch (nb::cast_error &) {
    raise(PyExc_TypeError, std::string(name) + ": its __dlpack_device__ is not a device");
  }
  if (type != kDLCPU) {
    std::string device = "DLPack type " + std::to_string(type);
    if (nb::hasattr(value, "device")) device = text_of(nb::getattr(value, "device"));
    raise(PyExc_ValueError, std::string(name) + ".device = " + device +
                                ": must be the CPU, no provider is registered for others");
  }
}

bool is_true(const nb::object &value) {
  const int truth = PyObject_IsTrue(value.ptr());
  if (truth < 0) throw nb::python_error();
  return truth != 0;
}

/// Whether the tensor is torch's. Raises for what torch refuses without the
/// argument's name, and for what it exports without its sign.
bool is_torch_tensor(nb::handle value, const char *name) {
  if (!nb::hasattr(value, "requires_grad")) return false;
  if (is_true(nb::getattr(value, "requires_grad"))) {
    raise(PyExc_ValueError,
          std::string(name) + ".requires_grad = True: nothing here has a gradient, detach() it");
  }
  if (nb::hasattr(value, "is_neg") && is_true(value.attr("is_neg")())) {
    raise(PyExc_ValueError,
          std::string(name) + ".is_neg() = True: its memory has the other sign, resolve_neg() it");
  }
  return true;
}

nb::object export_capsule(nb::handle value, const char *name) {
  const bool is_torch = is_torch_tensor(value, name);
  try {
    // Torch has no read-only tensors to tell apart, and its short form is faster.
    if (is_torch) return value.attr("__dlpack__")();
    try {
      return value.attr("__dlpack__")(nb::arg("max_version") = nb::make_tuple(newest_version, 0));
    } catch (nb::python_error &error) {
      // Producers of before version 1 know no keyword.
      if (!error.matches(PyExc_TypeError)) throw;
    }
    return value.attr("__dlpack__")();
  } catch (nb::python_error &error) {
    refuse(error, name);
  }
}

}  // namespace

DLPackBorrow::DLPackBorrow(nb::handle value, const char *name) {
  require_cpu(value, name);
  capsule_ = export_capsule(value, name);
  PyObject *capsule = capsule_.ptr();
  if (PyCapsule_IsValid(capsule, "dltensor_versioned")) {
    const auto *managed = static_cast<const DLManagedTensorVersioned *>(
        PyCapsule_GetPointer(capsule, "dltensor_versioned"));
    if (managed->version.major > newest_version) {
      raise(PyExc_ValueError, std::string(name) + ": its DLPack version is too new");
    }
    tensor_ = &managed->dl_tensor;
    is_read_only_ = (managed->flags & kDLReadOnly) != 0;
  } else if (PyCapsule_IsValid(capsule, "dltensor")) {
    tensor_ = &static_cast<const DLManagedTensor *>(PyCapsule_GetPointer(capsule, "dltensor"))
                   ->dl_tensor;
  } else {
    raise(PyExc_TypeError, std::string(name) + ": its __dlpack__ gave no DLPack capsule");
  }
}

}  // namespace mla_python
