#include "host_tensor.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <type_traits>

#include "arguments.h"
#include "dlpack.h"

namespace mla_python {

namespace {

struct DtypeRow {
  std::int32_t dtype;
  const char *name;
  DLDataType dlpack;
  /// NumPy has no name for the narrow formats: raw bytes, to be viewed as ml_dtypes'.
  const char *typestr;
};

constexpr DtypeRow dtypes[] = {
    {MLA_DTYPE_FLOAT32, "float32", {kDLFloat, 32, 1}, "<f4"},
    {MLA_DTYPE_FLOAT16, "float16", {kDLFloat, 16, 1}, "<f2"},
    {MLA_DTYPE_BFLOAT16, "bfloat16", {kDLBfloat, 16, 1}, "|V2"},
    {MLA_DTYPE_FLOAT8_E4M3FN, "float8_e4m3fn", {kDLFloat8_e4m3fn, 8, 1}, "|V1"},
};

const DtypeRow &row_of(std::int32_t dtype) {
  for (const DtypeRow &row : dtypes) {
    if (row.dtype == dtype) return row;
  }
  raise(PyExc_ValueError, "dtype = " + std::to_string(dtype) + ": must be one of MLA_DTYPE_*");
}

/// What a consumer of the capsule holds; `Managed` is DLManagedTensor or its successor.
template <class Managed>
struct Export {
  Managed managed;
  PyObject *owner;

  static void release(Managed *managed) {
    auto *exported = static_cast<Export *>(managed->manager_ctx);
    if (!interpreter_has_ended()) {
      const WithGil with_gil;
      drop(exported->owner);
    }
    delete exported;
  }

  static constexpr const char *name() {
    return std::is_same_v<Managed, DLManagedTensor> ? "dltensor" : "dltensor_versioned";
  }

  static void destroy_capsule(PyObject *capsule) {
    // A consumer renames what it has taken over.
    if (!PyCapsule_IsValid(capsule, name())) return;
    release(static_cast<Managed *>(PyCapsule_GetPointer(capsule, name())));
  }
};

template <class Managed>
nb::object capsule_of(nb::handle self, Managed head) {
  mla_tensor &view = const_cast<mla_tensor &>(nb::cast<HostTensor &>(self).view());
  auto exported = std::make_unique<Export<Managed>>();
  exported->owner = self.ptr();
  exported->managed = head;
  exported->managed.manager_ctx = exported.get();
  exported->managed.deleter = Export<Managed>::release;
  exported->managed.dl_tensor = {view.data,  {kDLCPU, 0},  view.ndim, row_of(view.dtype).dlpack,
                                 view.shape, view.strides, 0};
  nb::object capsule = nb::steal(PyCapsule_New(&exported->managed, Export<Managed>::name(),
                                               Export<Managed>::destroy_capsule));
  if (!capsule.is_valid()) throw nb::python_error();
  Py_INCREF(self.ptr());
  exported.release();
  return capsule;
}

/// Consumers that know version 1 are told whether they may write.
nb::object to_dlpack(nb::handle self, nb::kwargs keywords) {
  const bool has_version = keywords.contains("max_version") && !keywords["max_version"].is_none();
  if (!has_version || int64_argument(keywords["max_version"][0], "max_version") < 1) {
    return capsule_of(self, DLManagedTensor{});
  }
  DLManagedTensorVersioned head{};
  head.version = {1, 0};
  head.flags = nb::cast<HostTensor &>(self).is_read_only() ? kDLReadOnly : 0;
  return capsule_of(self, head);
}

nb::tuple tuple_of(const std::int64_t *values, std::int32_t count, std::int64_t scale = 1) {
  nb::list list;
  for (std::int32_t i = 0; i < count; ++i) list.append(values[i] * scale);
  return nb::tuple(list);
}

nb::dict array_interface(const HostTensor &self) {
  const mla_tensor &view = self.view();
  nb::dict interface;
  interface["version"] = 3;
  interface["shape"] = self.shape();
  interface["typestr"] = row_of(view.dtype).typestr;
  interface["data"] =
      nb::make_tuple(reinterpret_cast<std::uintptr_t>(view.data), self.is_read_only());
  interface["strides"] = tuple_of(view.strides, view.ndim, dtype_bytes(view.dtype));
  return interface;
}

}  // namespace

HostTensor::HostTensor(const std::vector<std::int64_t> &shape, std::int32_t dtype) {
  if (shape.empty() || shape.size() > MLA_MAX_NDIM) {
    raise(PyExc_ValueError, "shape: must have 1 to 4 dimensions");
  }
  view_.dtype = dtype;
  view_.ndim = static_cast<std::int32_t>(shape.size());
  std::int64_t bytes = dtype_bytes(dtype);
  for (std::int32_t i = view_.ndim - 1; i >= 0; --i) {
    view_.shape[i] = shape[static_cast<std::size_t>(i)];
    view_.strides[i] = bytes / dtype_bytes(dtype);
    if (view_.shape[i] < 0 || __builtin_mul_overflow(bytes, view_.shape[i], &bytes)) {
      raise(PyExc_ValueError, "shape: must be that of a tensor in memory");
    }
  }
  memory_.reset(new std::byte[static_cast<std::size_t>(bytes) + 1]);
  view_.data = memory_.get();
}

HostTensor::HostTensor(const mla_tensor &view, bool is_read_only)
    : view_(view), is_read_only_(is_read_only) {}

nb::tuple HostTensor::shape() const { return tuple_of(view_.shape, view_.ndim); }
nb::tuple HostTensor::strides() const { return tuple_of(view_.strides, view_.ndim); }

const char *dtype_name(std::int32_t dtype) { return row_of(dtype).name; }

std::int32_t dtype_of_name(const std::string &name) {
  for (const DtypeRow &row : dtypes) {
    if (name == row.name) return row.dtype;
  }
  return MLA_DTYPE_NONE;
}

std::int64_t dtype_bytes(std::int32_t dtype) { return row_of(dtype).dlpack.bits / 8; }

void bind_host_tensor(nb::module_ &module) {
  module.def("dtype_of_name", [](nb::str name) { return dtype_of_name(text_of(name)); },
             nb::arg("name"));
  module.def("dtype_name", &dtype_name, nb::arg("dtype"));
  nb::class_<HostTensor>(module, "HostTensor",
                         "A tensor in host memory: DLPack and NumPy's array interface over it.")
      .def(nb::init<const std::vector<std::int64_t> &, std::int32_t>(), nb::arg("shape"),
           nb::arg("dtype"))
      .def_prop_ro("shape", &HostTensor::shape)
      .def_prop_ro("strides", &HostTensor::strides)
      .def_prop_ro("dtype", [](const HostTensor &self) { return dtype_name(self.view().dtype); })
      .def_prop_ro("__array_interface__", &array_interface)
      .def("__dlpack__", &to_dlpack)
      .def("__dlpack_device__",
           [](const HostTensor &) { return nb::make_tuple(std::int32_t{kDLCPU}, 0); });
}

}  // namespace mla_python
