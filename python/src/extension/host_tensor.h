// A tensor in host memory that Python can see: DLPack and NumPy's array
// interface over memory of the library's callers, or over its own. What callers
// have on a device, DLPack alone hands on.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "borrowed_tensor.h"

namespace mla_python {

class HostTensor {
 public:
  /// Fresh memory, not initialised, rows dense.
  HostTensor(const std::vector<std::int64_t> &shape, std::int32_t dtype);

  /// A borrowed view: valid only as long as whoever lent it says. On a device it is to be
  /// used in the order of that stream.
  HostTensor(const mla_tensor &view, bool is_read_only, void *stream = nullptr);

  const mla_tensor &view() const { return view_; }
  bool is_read_only() const { return is_read_only_; }
  Place place() const { return {view_.device_type, view_.device_id, stream_}; }
  nb::tuple shape() const;
  nb::tuple strides() const;

 private:
  mla_tensor view_ = MLA_TENSOR_INIT;
  bool is_read_only_ = false;
  void *stream_ = nullptr;
  std::unique_ptr<std::byte[]> memory_;
};

/// "bfloat16" for MLA_DTYPE_BFLOAT16, ...; MLA_DTYPE_NONE for a name or type that is none of
/// the header's.
const char *dtype_name(std::int32_t dtype);
std::int32_t dtype_of_name(const std::string &name);
std::int32_t dtype_of(const DLDataType &type);
std::int64_t dtype_bytes(std::int32_t dtype);

}  // namespace mla_python
