// Integers of the caller's that no run writes: row offsets, lengths, slots, block tables.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "borrowed_tensor.h"

namespace mla_python {

/// A tensor of int32 or int64, borrowed.
class IntegerTensor {
 public:
  IntegerTensor() = default;

  /// False where `value` is no tensor. TypeError for other elements, ValueError for
  /// other devices.
  bool borrow(nb::handle value, const char *name);

  /// ValueError unless it has so many dimensions, at most two, and memory for its elements.
  void require_dimensions(int dimensions, const char *name, const char *meaning) const;

  std::int64_t size(int dimension) const { return tensor_.size(dimension); }
  /// In bytes.
  std::int64_t stride(int dimension) const { return strides_[dimension]; }
  const char *data() const { return static_cast<const char *>(tensor_.data()); }
  bool is_int32() const { return is_int32_; }

  /// An element of a tensor of one or two dimensions.
  std::int64_t at(std::int64_t row, std::int64_t column = 0) const {
    const char *element = data() + row * strides_[0] + column * strides_[1];
    return is_int32_ ? read<std::int32_t>(element) : read<std::int64_t>(element);
  }

 private:
  /// Elements may lie anywhere, in records of other types too.
  template <class Integer>
  static Integer read(const char *element) {
    Integer value;
    std::memcpy(&value, element, sizeof value);
    return value;
  }

  /// False where the elements are no integers of 32 or 64 bits.
  bool has_integers();

  BorrowedTensor tensor_;
  bool is_int32_ = false;
  std::int64_t strides_[2] = {0, 0};
};

/// Requests of a batch, as the header has it.
constexpr std::size_t max_requests = std::size_t{1} << 20;

/// Lengths: a 1-d tensor or sequence of integers, copied. TypeError for anything else,
/// ValueError for what does not fit 32 bits, and for more than `most`, which may be far
/// more than there is memory: one element can stand for any number.
std::vector<std::int32_t> int32_array_argument(nb::handle value, const char *name,
                                               std::size_t most = max_requests);

/// The same of 64 bits: slots.
std::vector<std::int64_t> int64_array_argument(nb::handle value, const char *name,
                                               std::size_t most);

/// The same of 32 bits for a batch's row offsets: ValueError where there is none.
std::vector<std::int32_t> offsets_argument(nb::handle value, const char *name);

/// The same of 32 bits, one for each request that `offsets` describe; none for None.
std::vector<std::int32_t> request_numbers_argument(nb::handle value, const char *name,
                                                   const std::vector<std::int32_t> &offsets,
                                                   const char *offsets_name);

/// Slots of a cache's block; 0 of what is none: the library says why.
std::int64_t block_size_of(const mla_tensor *kv_cache);

/// How many of its blocks a request's tokens reach into; 0 where the library will refuse.
std::int64_t blocks_reached(std::int64_t start, std::int64_t tokens, std::int64_t block_size);

/// A NULL pointer for an empty vector: the library refuses it where it must not be empty.
template <class T>
const T *pointer_or_null(const std::vector<T> &values) {
  return values.empty() ? nullptr : values.data();
}

/// ValueError for a table or the like that has not a row for each request, or whatever owns
/// one.
[[noreturn]] void refuse_rows(std::int64_t rows, std::int64_t owners, const char *name,
                              const char *owner = "request");

/// How many of each row's numbers are read, from the first on.
class Counts {
 public:
  Counts(const std::vector<std::int64_t> &each) : each_(&each), size_(each.size()) {}  // NOLINT
  /// All of each of `rows` rows, which may be more than there is memory for.
  static Counts all(std::size_t rows) { return Counts(rows); }

  std::size_t size() const { return size_; }
  std::int64_t operator[](std::size_t row) const { return each_ ? (*each_)[row] : INT32_MAX; }
  /// The columns that are read of any row.
  std::int64_t most() const;

 private:
  explicit Counts(std::size_t rows) : size_(rows) {}

  const std::vector<std::int64_t> *each_ = nullptr;
  std::size_t size_;
};

/// A row of numbers for each request, or whatever owns one: a 2-d tensor, of which int32 is read in
/// place and of int64 copied what is read, or a sequence of sequences, shorter ones filled with -1.
class TableArgument {
 public:
  /// None makes an absent one: its data is NULL. `rows` numbers each request's row, where it
  /// is not empty; else row i is request i's. TypeError, or ValueError for a table without a
  /// request's row, and for what does not fit 32 bits among the `counts[i]` first of
  /// request i's: others are not read, they may hold anything.
  TableArgument(nb::handle value, const char *name, const Counts &counts,
                const std::vector<std::int32_t> &rows, const char *owner = "request");
  TableArgument(const TableArgument &) = delete;
  TableArgument &operator=(const TableArgument &) = delete;

  /// Without rows by number.
  template <class Args>
  void fill_blocks(Args &args) const {
    args.block_table = data_;
    args.block_table_stride = row_stride_;
    args.max_blocks = columns_;
  }
  void fill(mla_layer_forward_args &args) const;
  /// As selected keys.
  void fill_selection(mla_layer_forward_args &args) const;

 private:
  void read_tensor(const char *name, const Counts &counts);
  void read_sequence(nb::handle value, const char *name, const Counts &counts);
  void require_rows(std::int64_t rows, const char *name, std::size_t requests);
  bool is_read_in_place() const;
  std::size_t row_of(std::size_t request) const;

  const std::int32_t *data_ = nullptr;
  std::int64_t row_stride_ = 0;
  std::int32_t columns_ = 0;
  IntegerTensor tensor_;
  std::int64_t row_count_ = 0;
  /// Each request's; what is copied has them in the requests' order.
  const std::vector<std::int32_t> &rows_;
  const char *owner_;
  std::vector<std::int32_t> copy_;
};

}  // namespace mla_python
