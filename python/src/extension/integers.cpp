#include "integers.h"

#include <algorithm>
#include <string>

#include "arguments.h"

namespace mla_python {

namespace {

std::string element_name(const char *name, std::size_t index) {
  return std::string(name) + "[" + std::to_string(index) + "]";
}

bool is_sequence(nb::handle value) {
  return PySequence_Check(value.ptr()) && !PyUnicode_Check(value.ptr()) &&
         !PyBytes_Check(value.ptr()) && !PyByteArray_Check(value.ptr());
}

/// Calls `take(item, index)` with each.
template <class Take>
void for_each_item(nb::handle value, const char *name, Take take) {
  const nb::object iterator = nb::steal(stopping_at_the_end(
      [&] { return is_sequence(value) ? PyObject_GetIter(value.ptr()) : nullptr; }));
  std::size_t index = 0;
  while (iterator.is_valid()) {
    const nb::object item =
        nb::steal(stopping_at_the_end([&] { return PyIter_Next(iterator.ptr()); }));
    if (!item.is_valid() && !PyErr_Occurred()) return;
    if (!item.is_valid()) break;
    take(item, index++);
  }
  forget_refusal();
  raise(PyExc_TypeError,
        std::string(name) + ": must be a tensor or sequence of integers, not " + kind_of(value));
}

[[noreturn]] void refuse_count(const std::string &count, std::size_t most, const char *name) {
  raise(PyExc_ValueError, std::string(name) + ": has " + count + " entries, must have at most " +
                              std::to_string(most));
}

template <class Out>
std::vector<Out> array_argument(nb::handle value, const char *name, std::size_t most) {
  std::vector<Out> values;
  IntegerTensor tensor;
  if (tensor.borrow(value, name)) {
    tensor.require_dimensions(1, name, "a list of numbers");
    const auto count = static_cast<std::size_t>(tensor.size(0));
    if (count > most) refuse_count(std::to_string(count), most, name);
    values.reserve(static_cast<std::size_t>(tensor.size(0)));
    for (std::int64_t i = 0; i < tensor.size(0); ++i) {
      const std::int64_t element = tensor.at(i);
      const Out narrow = static_cast<Out>(element);
      // The name is made where it is needed.
      const auto index = static_cast<std::size_t>(i);
      values.push_back(narrow == element ? narrow
                                         : narrowed<Out>(element, element_name(name, index)));
    }
    return values;
  }
  for_each_item(value, name, [&](nb::handle item, std::size_t index) {
    if (index == most) refuse_count("more", most, name);
    const std::string item_name = element_name(name, index);
    values.push_back(narrowed<Out>(int64_argument(item, item_name.c_str()), item_name));
  });
  return values;
}

}  // namespace

bool IntegerTensor::borrow(nb::handle value, const char *name) {
  // What is asked in vain takes longer than all of a short list.
  if (PyList_CheckExact(value.ptr()) || PyTuple_CheckExact(value.ptr())) return false;
  // First: NumPy before 2.1 exports nothing that is read-only by DLPack.
  if (tensor_.hold_buffer(value) && has_integers()) return true;
  if (!tensor_.exchange(value, name)) {
    if (!nb::hasattr(value, "__dlpack__")) return false;
    // What has both has told its type already.
    if (!tensor_.has_buffer()) tensor_.ask(value, name);
  }
  if (!has_integers()) raise(PyExc_TypeError, std::string(name) + ": must hold int32 or int64");
  return true;
}

bool IntegerTensor::has_integers() {
  is_int32_ = tensor_.type() == DLDataType{kDLInt, 32, 1};
  for (int i : {0, 1}) strides_[i] = tensor_.stride(i) * tensor_.stride_unit();
  return is_int32_ || tensor_.type() == DLDataType{kDLInt, 64, 1};
}

void IntegerTensor::require_dimensions(int dimensions, const char *name,
                                       const char *meaning) const {
  if (tensor_.ndim() != dimensions) {
    raise(PyExc_ValueError, std::string(name) + ".ndim = " + std::to_string(tensor_.ndim()) +
                                ": must be " + std::to_string(dimensions) + ", " + meaning);
  }
  const bool is_empty = tensor_.size(0) == 0 || (dimensions > 1 && tensor_.size(1) == 0);
  if (!is_empty && !tensor_.data()) {
    raise(PyExc_ValueError, std::string(name) + ".data = NULL: must not be NULL");
  }
}

std::vector<std::int32_t> int32_array_argument(nb::handle value, const char *name,
                                               std::size_t most) {
  return array_argument<std::int32_t>(value, name, most);
}

std::vector<std::int64_t> int64_array_argument(nb::handle value, const char *name,
                                               std::size_t most) {
  return array_argument<std::int64_t>(value, name, most);
}

std::vector<std::int32_t> offsets_argument(nb::handle value, const char *name) {
  std::vector<std::int32_t> offsets = int32_array_argument(value, name, max_requests + 1);
  if (offsets.empty()) {
    raise(PyExc_ValueError, std::string(name) + ": is empty, must have one entry for each "
                                                "request and one for the end");
  }
  return offsets;
}

std::vector<std::int32_t> request_numbers_argument(nb::handle value, const char *name,
                                                   const std::vector<std::int32_t> &offsets,
                                                   const char *offsets_name) {
  if (value.is_none()) return {};
  std::vector<std::int32_t> values = int32_array_argument(value, name);
  if (values.size() + 1 != offsets.size()) {
    raise(PyExc_ValueError, std::string(name) + ": has " + std::to_string(values.size()) +
                                " entries, must have one less than the " +
                                std::to_string(offsets.size()) + " of " + offsets_name);
  }
  return values;
}

std::int64_t block_size_of(const mla_tensor *kv_cache) {
  if (!kv_cache) return 0;
  return kv_cache->ndim == 2 ? 1 : kv_cache->ndim == 3 ? kv_cache->shape[1] : 0;
}

std::int64_t blocks_reached(std::int64_t start, std::int64_t tokens, std::int64_t block_size) {
  if (block_size < 1 || tokens <= 0) return 0;
  const std::int64_t end = std::max<std::int64_t>(start, 0) + tokens;
  return end / block_size + (end % block_size != 0);
}

void refuse_rows(std::int64_t rows, std::int64_t owners, const char *name, const char *owner) {
  raise(PyExc_ValueError, std::string(name) + ": has " + std::to_string(rows) +
                              " rows, must have one for each of the " + std::to_string(owners) +
                              " " + owner + "s");
}

namespace {

/// The block in that row and column; -1, which is no block's, where a number that does not
/// fit is none of the `count` first, which are read.
std::int32_t block_number(std::int64_t value, const char *name, std::int64_t row,
                          std::int64_t column, std::int64_t count) {
  const std::int32_t narrow = static_cast<std::int32_t>(value);
  if (narrow == value) return narrow;
  if (column >= count) return -1;
  const std::string row_name = element_name(name, static_cast<std::size_t>(row));
  return narrowed<std::int32_t>(
      value, element_name(row_name.c_str(), static_cast<std::size_t>(column)));
}

}  // namespace

std::int64_t Counts::most() const {
  if (size_ == 0) return 0;
  return each_ ? *std::max_element(each_->begin(), each_->end()) : INT32_MAX;
}

TableArgument::TableArgument(nb::handle value, const char *name, const Counts &counts,
                             const std::vector<std::int32_t> &rows, const char *owner)
    : rows_(rows), owner_(owner) {
  if (value.is_none()) return;
  if (tensor_.borrow(value, name)) {
    read_tensor(name, counts);
  } else {
    read_sequence(value, name, counts);
  }
  if (data_) return;
  // A table of no blocks is none that is absent.
  static constexpr std::int32_t nothing = -1;
  data_ = copy_.empty() ? &nothing : copy_.data();
  row_stride_ = columns_;
}

void TableArgument::fill(mla_layer_forward_args &args) const {
  fill_blocks(args);
  if (!copy_.empty()) return;
  args.block_table_rows = pointer_or_null(rows_);
  args.num_table_rows = row_count_;
}

void TableArgument::fill_selection(mla_layer_forward_args &args) const {
  args.topk_indices = data_;
  args.topk_stride = row_stride_;
  args.topk = columns_;
}

std::size_t TableArgument::row_of(std::size_t request) const {
  return rows_.empty() ? request : static_cast<std::size_t>(rows_[request]);
}

void TableArgument::require_rows(std::int64_t rows, const char *name, std::size_t requests) {
  row_count_ = rows;
  const auto needed = static_cast<std::int64_t>(requests);
  if (rows_.empty() && rows < needed) refuse_rows(rows, needed, name, owner_);
  for (std::size_t request = 0; request < rows_.size(); ++request) {
    if (rows_[request] >= 0 && rows_[request] < rows) continue;
    raise(PyExc_ValueError, element_name("block_table_rows", request) + " = " +
                                std::to_string(rows_[request]) + ": must be one of the " +
                                std::to_string(rows) + " rows of " + name);
  }
}

bool TableArgument::is_read_in_place() const {
  constexpr std::int64_t element = sizeof(std::int32_t);
  const bool is_aligned = reinterpret_cast<std::uintptr_t>(tensor_.data()) % element == 0;
  return tensor_.is_int32() && is_aligned && (columns_ < 2 || tensor_.stride(1) == element) &&
         tensor_.stride(0) % element == 0 && tensor_.stride(0) >= columns_ * element;
}

void TableArgument::read_tensor(const char *name, const Counts &counts) {
  tensor_.require_dimensions(2, name, (std::string("a row for each ") + owner_).c_str());
  require_rows(tensor_.size(0), name, counts.size());
  columns_ = narrowed<std::int32_t>(tensor_.size(1), std::string(name) + ".shape[1]");
  if (is_read_in_place()) {
    data_ = reinterpret_cast<const std::int32_t *>(tensor_.data());
    row_stride_ = tensor_.stride(0) / static_cast<std::int64_t>(sizeof *data_);
    return;
  }
  columns_ = static_cast<std::int32_t>(std::min<std::int64_t>(columns_, counts.most()));
  copy_.reserve(counts.size() * static_cast<std::size_t>(columns_));
  for (std::size_t request = 0; request < counts.size(); ++request) {
    const auto row = static_cast<std::int64_t>(row_of(request));
    for (std::int64_t column = 0; column < columns_; ++column) {
      copy_.push_back(
          block_number(tensor_.at(row, column), name, row, column, counts[request]));
    }
  }
}

void TableArgument::read_sequence(nb::handle value, const char *name, const Counts &counts) {
  std::vector<std::vector<std::int64_t>> rows;
  std::size_t longest = 0;
  for_each_item(value, name, [&](nb::handle item, std::size_t index) {
    const std::string row_name = element_name(name, index);
    rows.push_back(int64_array_argument(item, row_name.c_str(), INT32_MAX));
    longest = std::max(longest, rows.back().size());
  });
  require_rows(static_cast<std::int64_t>(rows.size()), name, counts.size());
  columns_ = narrowed<std::int32_t>(static_cast<std::int64_t>(longest), name);
  copy_.reserve(counts.size() * longest);
  for (std::size_t request = 0; request < counts.size(); ++request) {
    const std::size_t row = row_of(request);
    for (std::size_t column = 0; column < longest; ++column) {
      const std::int64_t number = column < rows[row].size() ? rows[row][column] : -1;
      copy_.push_back(block_number(number, name, static_cast<std::int64_t>(row),
                                   static_cast<std::int64_t>(column), counts[request]));
    }
  }
}

}  // namespace mla_python
