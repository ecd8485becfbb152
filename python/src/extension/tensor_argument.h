// A tensor handed in from Python, as the library reads it.
#pragma once

#include <string>

#include "borrowed_tensor.h"

namespace mla_python {

/// What an argument is for.
struct Role {
  /// An output's producer must say that its memory may be written.
  bool is_output;
  /// Caches of fp8 are often kept as bytes.
  bool takes_uint8;
  /// A Python number or a 0-d tensor is taken for [1].
  bool takes_number;
  /// For messages: the types that the library takes there.
  const char *types;
};

namespace role {

constexpr Role input{false, false, false, "float32, float16 or bfloat16"};
constexpr Role output{true, false, false,
                      "float32, float16, bfloat16 or, with an output_scale, float8_e4m3fn"};
constexpr Role gathered{true, false, false, "float32, float16 or bfloat16"};
constexpr Role float32_input{false, false, false, "float32"};
constexpr Role float32_output{true, false, false, "float32"};
constexpr Role weights{false, false, false,
                       "float32, float16, bfloat16 or, with weight_scales, float8_e4m3fn"};
constexpr Role weight_scales{false, false, true, "float32 or float8_e8m0fnu"};
constexpr const char *cache_types =
    "float32, float16, bfloat16, float8_e4m3fn or, for the latter, uint8";
constexpr Role cache{false, true, false, cache_types};
constexpr Role filled_cache{true, true, false, cache_types};

}  // namespace role

/// A view of the object's own memory, which it keeps alive.
class TensorArgument {
 public:
  /// `field` points to it; None leaves that NULL. Raises TypeError or ValueError that begin
  /// with `name`; shapes are the library's to judge.
  TensorArgument(nb::handle value, const char *name, const mla_tensor *&field,
                 const Role &role = role::input, const Place &place = {});
  TensorArgument(const TensorArgument &) = delete;
  TensorArgument &operator=(const TensorArgument &) = delete;

  /// [blocks, block_size, 1, width], as caches with a dimension for heads are, becomes
  /// [blocks, block_size, width].
  void drop_heads();

  /// Of fresh outputs on the CPU, before a run: rows of out beyond the batch's are 0, and entries of
  /// lse -inf, as those of tokens without keys. Nothing for what a run refuses.
  void clear_rows_from(std::int64_t row);
  void clear_tokens_from(std::int64_t token);

 private:
  void read(nb::handle value, const char *name, const Place &place);
  bool is_ours_to_write() const;
  void read_number(nb::handle value, const char *name);
  void read_host_tensor(nb::handle value);
  void read_memory(nb::handle value, const char *name);
  void read_array_interface(nb::handle value, const char *name);
  [[noreturn]] void refuse_dtype(nb::handle value, const std::string &dtype,
                                 const char *name) const;

  mla_tensor view_ = MLA_TENSOR_INIT;
  BorrowedTensor memory_;
  nb::object owner_;
  Role role_;
  float number_ = 0;
  Writing writing_ = Writing::allowed;
};

}  // namespace mla_python
