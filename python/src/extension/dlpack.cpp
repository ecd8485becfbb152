#include "dlpack.h"

#include <string>

#include "arguments.h"

namespace mla_python {

namespace {

constexpr int newest_version = 1;

void require_cpu(std::int64_t type, nb::handle value, const char *name) {
  if (type == kDLCPU) return;
  std::string device = "DLPack type " + std::to_string(type);
  if (nb::hasattr(value, "device")) device = text_of(nb::getattr(value, "device"));
  raise(PyExc_ValueError, std::string(name) + ".device = " + device +
                              ": must be the CPU, no provider is registered for others");
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
void require_cpu_device(nb::handle value, const char *name) {
  const nb::object device =
      answer(name, [&] { return nb::object(call_method(value, "__dlpack_device__")[0]); });
  require_cpu(int64_argument(device, name), value, name);
}

bool is_true(const nb::object &value) {
  const int truth = PyObject_IsTrue(value.ptr());
  if (truth < 0) throw nb::python_error();
  return truth != 0;
}

/// torch, if the value is one of its tensors.
nb::object torch_of(nb::handle value) {
  nb::object torch = nb::borrow(PyDict_GetItemString(PyImport_GetModuleDict(), "torch"));
  if (!torch.is_valid() || !nb::hasattr(torch, "Tensor")) return nb::object();
  const int is_torch = PyObject_IsInstance(value.ptr(), nb::getattr(torch, "Tensor").ptr());
  if (is_torch < 0) throw nb::python_error();
  return is_torch ? torch : nb::object();
}

/// Raises for what torch refuses without the argument's name, and for what it exports
/// without its sign.
void require_plain_numbers(nb::handle value, const char *name) {
  if (is_true(nb::getattr(value, "requires_grad"))) {
    raise(PyExc_ValueError,
          std::string(name) + ".requires_grad = True: nothing here has a gradient, detach() it");
  }
  if (is_true(value.attr("is_neg")())) {
    raise(PyExc_ValueError,
          std::string(name) + ".is_neg() = True: its memory has the other sign, resolve_neg() it");
  }
}

nb::object export_capsule(nb::handle value, const nb::object &torch, const char *name) {
  if (torch.is_valid()) {
    require_plain_numbers(value, name);
    // Ten times faster than its __dlpack__; the capsule is an old one, but torch has no
    // read-only tensors to tell apart.
    return answer(name, [&] {
      return torch.attr("utils").attr("dlpack").attr("to_dlpack")(value);
    });
  }
  require_cpu_device(value, name);
  return answer(name, [&] {
    try {
      nb::dict keywords;
      keywords["max_version"] = nb::make_tuple(newest_version, 0);
      return called(nb::getattr(value, "__dlpack__"), nb::tuple(), keywords);
    } catch (nb::python_error &error) {
      // Producers of before version 1 know no keyword.
      if (!error.matches(PyExc_TypeError)) throw;
    }
    return call_method(value, "__dlpack__");
  });
}

}  // namespace

bool is_torch_tensor(nb::handle value) { return torch_of(value).is_valid(); }

DLPackBorrow::DLPackBorrow(nb::handle value, const char *name) {
  const nb::object torch = torch_of(value);
  capsule_ = export_capsule(value, torch, name);
  PyObject *capsule = capsule_.ptr();
  if (PyCapsule_IsValid(capsule, "dltensor_versioned")) {
    const auto *managed = static_cast<const DLManagedTensorVersioned *>(
        PyCapsule_GetPointer(capsule, "dltensor_versioned"));
    if (managed->version.major > newest_version) {
      raise(PyExc_ValueError, std::string(name) + ": its DLPack version is too new");
    }
    tensor_ = &managed->dl_tensor;
    writing_ = managed->flags & kDLReadOnly ? Writing::forbidden : Writing::allowed;
  } else if (PyCapsule_IsValid(capsule, "dltensor")) {
    if (torch.is_valid()) writing_ = Writing::allowed;
    tensor_ = &static_cast<const DLManagedTensor *>(PyCapsule_GetPointer(capsule, "dltensor"))
                   ->dl_tensor;
  } else {
    raise(PyExc_TypeError, std::string(name) + ": its __dlpack__ gave no DLPack capsule");
  }
  require_cpu(tensor_->device.device_type, value, name);
}

}  // namespace mla_python
