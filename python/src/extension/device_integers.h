// Integers of the caller's that only a device can read.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "borrowed_tensor.h"

namespace mla_python {

/// A tensor there, whose last dimension is dense.
class DeviceIntegers {
 public:
  /// TypeError for other elements than signed ones of so many bits, ValueError for other
  /// dimensions than so many, at most two.
  DeviceIntegers(nb::handle value, const char *name, const Place &place, int bits, int dimensions);

  std::int64_t size(int dimension) const { return tensor_.size(dimension); }
  /// From a row to the next.
  std::int64_t row_stride() const { return size(0) > 1 ? tensor_.stride(0) : size(1); }
  template <class Integer>
  const Integer *data() const {
    return static_cast<const Integer *>(tensor_.data());
  }

 private:
  BorrowedTensor tensor_;
};

/// A row of block numbers for each request, of int32.
class DeviceTable {
 public:
  /// None makes an absent one: its data is NULL. TypeError, or ValueError for fewer rows than
  /// `requests`.
  DeviceTable(nb::handle value, const char *name, const Place &place, std::int64_t requests);

  template <class Args>
  void fill_blocks(Args &args) const {
    args.block_table = data_;
    args.block_table_stride = integers_ ? integers_->row_stride() : 0;
    args.max_blocks = columns_;
  }
  /// With rows by number, which the library judges.
  void fill(mla_layer_forward_args &args, const std::vector<std::int32_t> &rows) const;

 private:
  std::optional<DeviceIntegers> integers_;
  const std::int32_t *data_ = nullptr;
  std::int32_t columns_ = 0;
};

}  // namespace mla_python
