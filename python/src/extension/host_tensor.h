// A tensor in host memory that Python can see: DLPack and NumPy's array
// interface over memory of the library's callers, or over its own.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "dlpack.h"

namespace mla_python {

class HostTensor {
 public:
  /// Fresh memory, not initialised, rows dense.
  HostTensor(const std::vector<std::int64_t> &shape, std::int32_t dtype);

  /// A borrowed view: valid only as long as whoever lent it says.
  HostTensor(const mla_tensor &view, bool is_read_only);

  const mla_tensor &view() const { return view_; }
  bool is_read_only() const { return is_read_only_; }
  nb::tuple shape() const;
  nb::tuple strides() const;

 private:
  mla_tensor view_ = MLA_TENSOR_INIT;
  bool is_read_only_ = false;
  std::unique_ptr<std::byte[]> memory_;
};

/// "bfloat16" for MLA_DTYPE_BFLOAT16, ...; MLA_DTYPE_NONE for a name or type that is none of
/// the header's.
const char *dtype_name(std::int32_t dtype);
std::int32_t dtype_of_name(const std::string &name);
std::int32_t dtype_of(const DLDataType &type);
std::int64_t dtype_bytes(std::int32_t dtype);

}  // namespace mla_python
