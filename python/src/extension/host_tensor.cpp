#include "host_tensor.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <utility>

#include "arguments.h"
#include "bindings.h"

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
    {MLA_DTYPE_FLOAT8_E8M0FNU, "float8_e8m0fnu", {kDLFloat8_e8m0fnu, 8, 1}, "|V1"},
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

};

template <class Managed>
nb::object capsule_of(nb::handle self, Managed head) {
  mla_tensor &view = const_cast<mla_tensor &>(nb::cast<HostTensor &>(self).view());
  auto *exported = new Export<Managed>{head, self.inc_ref().ptr()};
  exported->managed.manager_ctx = exported;
  exported->managed.deleter = Export<Managed>::release;
  exported->managed.dl_tensor = {view.data,
                                 {view.device_type, view.device_id},
                                 view.ndim,
                                 row_of(view.dtype).dlpack,
                                 view.shape,
                                 view.strides,
                                 0};
  return mla_python::capsule_of(&exported->managed);
}

/// What a consumer asks `__dlpack__` for: the keywords of the array API standard.
class ExportRequest {
 public:
  /// TypeError for what is no such keyword or no such value, BufferError for what is not to
  /// be had from memory in that place.
  ExportRequest(nb::kwargs keywords, const Place &place) : place_(place) {
    for (const auto &[keyword, value] : keywords) take(text_of(keyword), value);
    if (!has_stream_ && !place.is_cpu()) require_stream(default_stream());
  }

  /// Consumers that know version 1 are told whether they may write.
  bool has_flags() const { return has_flags_; }
  bool wants_copy() const { return wants_copy_; }

 private:
  void take(const std::string &keyword, nb::handle value) {
    const bool is_known = keyword == "stream" || keyword == "max_version" ||
                          keyword == "dl_device" || keyword == "copy";
    if (!is_known) raise(PyExc_TypeError, "__dlpack__: has no keyword '" + keyword + "'");
    if (value.is_none()) return;
    if (keyword == "copy") take_copy(flag_argument(value, "copy"));
    if (keyword == "stream") take_stream(value);
    if (keyword == "max_version") {
      has_flags_ = pair_argument(value, "max_version", "(major, minor)").first >= 1;
    }
    if (keyword == "dl_device") require_place(pair_argument(value, "dl_device", "(type, id)"));
  }

  void take_copy(bool wants_copy) {
    if (wants_copy && !place_.is_cpu()) {
      raise(PyExc_BufferError, "copy = True: must not be, for memory of a device");
    }
    wants_copy_ = wants_copy;
  }

  void take_stream(nb::handle value) {
    if (place_.is_cpu()) raise(PyExc_BufferError, "stream: must be None, the CPU has none");
    require_stream(int64_argument(value, "stream"));
    has_stream_ = true;
  }

  std::int64_t default_stream() const {
    return dlpack_stream({place_.device_type, place_.device_id, nullptr});
  }

  /// One that waits for another is not to be had without the device's driver.
  void require_stream(std::int64_t stream) const {
    constexpr std::int64_t without_waiting = -1;
    if (stream == without_waiting || stream == dlpack_stream(place_)) return;
    raise(PyExc_BufferError, "stream = " + std::to_string(stream) + ": must be the run's, " +
                                 std::to_string(dlpack_stream(place_)) +
                                 ", or -1 where the consumer waits for that one itself");
  }

  static std::pair<std::int64_t, std::int64_t> pair_argument(nb::handle value, const char *name,
                                                             const char *form) {
    const bool is_sequence = nb::isinstance<nb::tuple>(value) || nb::isinstance<nb::list>(value);
    if (!is_sequence || nb::len(value) != 2) {
      raise(PyExc_TypeError,
            std::string(name) + ": must be " + form + " or None, not " + kind_of(value));
    }
    return {int64_argument(value[0], name), int64_argument(value[1], name)};
  }

  void require_place(const std::pair<std::int64_t, std::int64_t> &device) const {
    if (device.first == place_.device_type && device.second == place_.device_id) return;
    const auto pair = [](std::int64_t type, std::int64_t id) {
      return "(" + std::to_string(type) + ", " + std::to_string(id) + ")";
    };
    raise(PyExc_BufferError, "dl_device = " + pair(device.first, device.second) + ": must be " +
                                 (place_.is_cpu() ? "the CPU, " : "where it is, ") +
                                 pair(place_.device_type, place_.device_id));
  }

  Place place_;
  bool has_stream_ = false;
  bool has_flags_ = false;
  bool wants_copy_ = false;
};

/// Copies what an axis and those after it have at `source`; returns the end of the copy.
std::byte *copy_densely(const mla_tensor &from, std::int32_t axis, const std::byte *source,
                        std::byte *target) {
  const std::int64_t bytes = dtype_bytes(from.dtype);
  const std::int64_t size = from.shape[axis], stride = from.strides[axis];
  const bool is_last = axis == from.ndim - 1;
  for (std::int64_t i = 0; i < size; ++i) {
    const std::byte *const item = source + i * stride * bytes;
    if (!is_last) {
      target = copy_densely(from, axis + 1, item, target);
      continue;
    }
    std::memcpy(target, item, static_cast<std::size_t>(bytes));
    target += bytes;
  }
  return target;
}

nb::object copy_of(const mla_tensor &view) {
  HostTensor copy(std::vector<std::int64_t>(view.shape, view.shape + view.ndim), view.dtype);
  copy_densely(view, 0, static_cast<const std::byte *>(view.data),
               static_cast<std::byte *>(copy.view().data));
  return nb::cast(std::move(copy));
}

nb::object to_dlpack(nb::handle self, nb::kwargs keywords) {
  const HostTensor &tensor = nb::cast<HostTensor &>(self);
  const ExportRequest request(keywords, tensor.place());
  const nb::object exported = request.wants_copy() ? copy_of(tensor.view()) : nb::borrow(self);
  if (!request.has_flags()) return capsule_of(exported, DLManagedTensor{});
  DLManagedTensorVersioned head{};
  head.version = {1, 0};
  if (request.wants_copy()) {
    head.flags = kDLIsCopied;
  } else if (tensor.is_read_only()) {
    head.flags = kDLReadOnly;
  }
  return capsule_of(exported, head);
}

nb::dict array_interface(const HostTensor &self) {
  const mla_tensor &view = self.view();
  if (!self.place().is_cpu()) {
    // As if there were no such attribute: NumPy would read the memory.
    raise(PyExc_AttributeError, "__array_interface__: its memory is a device's");
  }
  nb::dict interface;
  interface["version"] = 3;
  interface["shape"] = self.shape();
  interface["typestr"] = row_of(view.dtype).typestr;
  interface["data"] =
      nb::make_tuple(reinterpret_cast<std::uintptr_t>(view.data), self.is_read_only());
  interface["strides"] =
      nb::tuple(list_of(view.strides, view.ndim, dtype_bytes(view.dtype)));
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

HostTensor::HostTensor(const mla_tensor &view, bool is_read_only, void *stream)
    : view_(view), is_read_only_(is_read_only), stream_(stream) {}

nb::tuple HostTensor::shape() const { return nb::tuple(list_of(view_.shape, view_.ndim)); }
nb::tuple HostTensor::strides() const { return nb::tuple(list_of(view_.strides, view_.ndim)); }

const char *dtype_name(std::int32_t dtype) { return row_of(dtype).name; }

std::int32_t dtype_of_name(const std::string &name) {
  for (const DtypeRow &row : dtypes) {
    if (name == row.name) return row.dtype;
  }
  return MLA_DTYPE_NONE;
}

std::int32_t dtype_of(const DLDataType &type) {
  for (const DtypeRow &row : dtypes) {
    if (type == row.dlpack) return row.dtype;
  }
  return MLA_DTYPE_NONE;
}

std::int64_t dtype_bytes(std::int32_t dtype) { return row_of(dtype).dlpack.bits / 8; }

void bind_host_tensor(nb::module_ &module) {
  module.def("dtype_of_name", [](nb::str name) { return dtype_of_name(text_of(name)); });
  module.def("dtype_name", &dtype_name);
  nb::class_<HostTensor>(module, "HostTensor",
                         "A tensor in host memory: DLPack and NumPy's array interface over it. Of a "
                         "device's, which runs there are handed, DLPack alone, and the run's stream.")
      .def(nb::init<const std::vector<std::int64_t> &, std::int32_t>())
      .def_prop_ro("shape", &HostTensor::shape)
      .def_prop_ro("strides", &HostTensor::strides)
      .def_prop_ro("dtype", [](const HostTensor &self) { return dtype_name(self.view().dtype); })
      .def_prop_ro("__array_interface__", &array_interface)
      .def("__dlpack__", &to_dlpack)
      .def("__dlpack_device__",
           [](const HostTensor &self) {
             return nb::make_tuple(self.view().device_type, self.view().device_id);
           })
      .def_prop_ro("stream", [](const HostTensor &self) {
        const Place place = self.place();
        return place.is_cpu() ? nb::none() : nb::object(nb::int_(
            reinterpret_cast<std::intptr_t>(place.stream)));
      });
}

}  // namespace mla_python
