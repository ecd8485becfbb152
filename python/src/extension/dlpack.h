// DLPack's structs and capsules.
//
// nanobind has the tensor's struct. Its nb::ndarray would not do: it takes capsules of before
// version 1 for writable, which JAX's are not, knows no ml_dtypes in NumPy's arrays, has no
// message for what it refuses, and makes no copies of what it exports.
#pragma once

#include <nanobind/ndarray.h>

#include <cstdint>

#include "calls.h"

namespace mla_python {

using DLTensor = nb::dlpack::dltensor;
using DLDataType = nb::dlpack::dtype;

constexpr std::int32_t kDLCPU = nb::device::cpu::value;
/// As numbers: nanobind has an enum class.
enum : std::uint8_t {
  kDLInt = 0,
  kDLUInt = 1,
  kDLFloat = 2,
  kDLBfloat = 4,
  kDLFloat8_e4m3fn = 10,
  kDLFloat8_e8m0fnu = 14
};

struct DLManagedTensor {
  static constexpr const char *capsule_name = "dltensor";

  DLTensor dl_tensor;
  void *manager_ctx;
  void (*deleter)(DLManagedTensor *);
};

struct DLPackVersion {
  std::uint32_t major;
  std::uint32_t minor;
};

constexpr std::uint32_t dlpack_major_version = 1;

struct DLManagedTensorVersioned {
  static constexpr const char *capsule_name = "dltensor_versioned";

  DLPackVersion version;
  void *manager_ctx;
  void (*deleter)(DLManagedTensorVersioned *);
  std::uint64_t flags;
  DLTensor dl_tensor;
};

constexpr std::uint64_t kDLReadOnly = 1;
constexpr std::uint64_t kDLIsCopied = 2;

/// What a capsule that no consumer has taken over and renamed holds; NULL for any other object.
template <class Managed>
Managed *managed_of(nb::handle capsule) {
  if (!PyCapsule_IsValid(capsule.ptr(), Managed::capsule_name)) return nullptr;
  return static_cast<Managed *>(PyCapsule_GetPointer(capsule.ptr(), Managed::capsule_name));
}

/// A capsule that gives the tensor back, unless a consumer does; now, where there is no
/// memory for one.
template <class Managed>
nb::object capsule_of(Managed *managed) {
  static constexpr auto give_back = [](Managed *owned) {
    if (owned && owned->deleter) owned->deleter(owned);
  };
  PyObject *capsule = PyCapsule_New(managed, Managed::capsule_name, [](PyObject *unused) {
    give_back(managed_of<Managed>(unused));
  });
  if (!capsule) {
    give_back(managed);
    throw nb::python_error();
  }
  return nb::steal(capsule);
}

}  // namespace mla_python
