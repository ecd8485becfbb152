#include "device_integers.h"

#include <string>

#include "arguments.h"
#include "integers.h"

namespace mla_python {

DeviceIntegers::DeviceIntegers(nb::handle value, const char *name, const Place &place, int bits,
                               int dimensions) {
  if (!tensor_.exchange(value, name, place)) tensor_.ask(value, name, place);
  if (!(tensor_.type() == DLDataType{kDLInt, static_cast<std::uint8_t>(bits), 1})) {
    raise(PyExc_TypeError,
          std::string(name) + ": must be of int" + std::to_string(bits) + " on a device");
  }
  const int last = dimensions - 1;
  if (tensor_.ndim() != dimensions || (size(last) > 1 && tensor_.stride(last) != 1)) {
    raise(PyExc_ValueError, std::string(name) + ": must have " +
                                (dimensions == 1 ? "one dimension, dense," :
                                                   "two dimensions, the last dense,") +
                                " on a device");
  }
}

DeviceTable::DeviceTable(nb::handle value, const char *name, const Place &place,
                         std::int64_t requests) {
  if (value.is_none()) return;
  integers_.emplace(value, name, place, 32, 2);
  const std::int64_t rows = integers_->size(0);
  if (rows < requests) refuse_rows(rows, requests, name);
  columns_ = narrowed<std::int32_t>(integers_->size(1), std::string(name) + ".shape[1]");
  data_ = integers_->data<std::int32_t>();
  // A table of no blocks is none that is absent.
  static constexpr std::int32_t nothing = -1;
  if (!data_) data_ = &nothing;
}

void DeviceTable::fill(mla_layer_forward_args &args, const std::vector<std::int32_t> &rows) const {
  fill_blocks(args);
  args.block_table_rows = pointer_or_null(rows);
  args.num_table_rows = integers_ ? integers_->size(0) : 0;
}

}  // namespace mla_python
