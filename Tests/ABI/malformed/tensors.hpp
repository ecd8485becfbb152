// Rules that break one tensor of a call.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>

#include "rules.hpp"

namespace malformed {

/// A tensor of a call, its description padded, its memory its own.
struct Operand {
  Operand(std::int32_t dtype, std::vector<std::int64_t> shape)
      : array(dtype, std::move(shape)), view(array.view()), before(array.bytes()) {}
  Operand(const Operand&) = delete;
  Operand& operator=(const Operand&) = delete;

  /// The same numbers each time, which are drawn for a shape's first tensor only: that
  /// takes longer than the calls.
  void fill() {
    static std::map<std::vector<std::int64_t>, test::Array> drawn;
    const mla::tensor& t = array.view();
    std::vector<std::int64_t> key{t.dtype};
    key.insert(key.end(), t.shape, t.shape + t.ndim);
    auto found = drawn.find(key);
    if (found == drawn.end()) {
      std::mt19937 random(5);
      found = drawn.emplace(key, array.fill(random)).first;
    }
    array = found->second;
    before = array.bytes();
    view.value.data = array.view().data;
  }
  bool untouched() const { return array.bytes() == before; }

  test::Array array;
  Padded<mla_tensor> view;
  std::vector<std::uint8_t> before;
};

/// Values that are no dtype.
inline std::int32_t wrong_dtype(Random& random) {
  return static_cast<std::int32_t>(random.any_of<std::int64_t>(
      {MLA_DTYPE_NONE, 6, 17, -1, INT32_MAX, INT32_MIN, random.between(6, INT32_MAX)}));
}

/// What a tensor's sizes are changed by: for those that are checked against each other
/// alone powers of two of their own, so that no wrong sizes agree.
inline std::int64_t size_step(const std::string& name) {
  return name == "kv_cache" ? 4 : name == "k_pe" ? 2 : 1;
}

/// Whether offsets beside a tensor tell how many of its rows are used. Of two dimensions the
/// last are rows, as of an lse, or the first.
enum class Rows { by_offsets, first_by_offsets, by_shape };

template <class Call, class Select, class Pointer>
void add_tensor_rules(std::vector<Rule<Call>>& rules, const std::string& name, Select select,
                      Pointer pointer, Rows rows, bool may_be_null = false,
                      std::int64_t step = 0) {
  const mla_status invalid = MLA_ERROR_INVALID_ARGUMENT;
  const auto view = [=](Call& call) -> mla_tensor& { return select(call).view.value; };
  const auto add = [&](mla_status status, auto apply) {
    rules.push_back({name, status, [=](Call& call, Random& random) { apply(view(call), random); }});
  };
  std::vector<Rule<Call>> of_struct;
  const auto description = [=](Call& call) -> auto& { return select(call).view; };
  add_struct_rules(of_struct, name, description, pointer);
  rules.insert(rules.end(), of_struct.begin() + (may_be_null ? 1 : 0), of_struct.end());

  add(invalid, [](mla_tensor& t, Random& random) { t.dtype = wrong_dtype(random); });
  add(invalid, [](mla_tensor& t, Random&) { t.data = nullptr; });
  // Not aligned to its elements: fp32 at addresses of two bytes, too.
  add(invalid, [](mla_tensor& t, Random& random) {
    const std::int64_t offset = t.dtype == MLA_DTYPE_FLOAT32 ? random.between(1, 3) : 1;
    if (t.data != nullptr) t.data = static_cast<char*>(t.data) + offset;
  });
  // Unsupported hardware or, beside CPU tensors, a mismatch: either is right.
  add(any_failure, [](mla_tensor& t, Random& random) {
    t.device_type = random.any_of<std::int32_t>({MLA_DEVICE_CUDA, MLA_DEVICE_ROCM});
  });
  // The last of its dimensions; their number may be broken already.
  const auto last_of = [](const mla_tensor& t) { return t.ndim == 2 || t.ndim == 4 ? t.ndim - 1 : 2; };
  add(invalid, [=](mla_tensor& t, Random& random) {
    t.ndim = random.any_of<std::int32_t>(
        {0, 1, last_of(t) == 3 ? 2 : 4, 5, -1, INT32_MAX, INT32_MIN, random.negative()});
  });
  if (step == 0) step = size_step(name);
  const auto tokens_of = [=](const mla_tensor& t) { return t.ndim == 2 && rows == Rows::by_offsets ? 1 : 0; };
  add(invalid, [=](mla_tensor& t, Random& random) {
    const std::int64_t dimension = random.between(0, last_of(t));
    t.shape[dimension] = random.any_of<std::int64_t>({0, -1, INT64_MIN, INT64_MAX, INT64_MAX / 2});
  });
  add(invalid, [=](mla_tensor& t, Random& random) {
    const std::int64_t dimension = random.between(0, last_of(t));
    if (t.shape[dimension] < 1 || t.shape[dimension] > 100) return;  // broken already
    // More rows than the call uses are allowed where the offsets say which.
    const bool may_grow = rows != Rows::by_shape && dimension == tokens_of(t);
    t.shape[dimension] +=
        may_grow ? -step : random.any_of<std::int64_t>({-step, step, (1 << 20) + step});
  });
  add(invalid, [=](mla_tensor& t, Random& random) {
    t.strides[last_of(t)] = random.any_of<std::int64_t>({0, 2, -1, INT64_MAX, INT64_MIN});
  });
  add(invalid, [=](mla_tensor& t, Random& random) {
    const std::int64_t dimension = random.between(0, last_of(t) - 1);
    t.strides[dimension] =
        random.any_of<std::int64_t>({-1, INT64_MIN, INT64_MAX, INT64_MAX / 2 + 8});
  });
}

/// A workspace that lies in one of the call's tensors.
template <class Call, class Select>
void add_workspace_rule(std::vector<Rule<Call>>& rules, const std::string& name, Select select) {
  rules.push_back({"must not overlap " + name, MLA_ERROR_INVALID_ARGUMENT, [=](Call& c, Random&) {
                     c.args.value.workspace = select(c).view.value.data;
                     c.args.value.workspace_size = 16;
                   }});
}

/// Rules of a quantized output: fp8 and its scale go together. `output` finds the
/// tensor, `pointer` where the call keeps the scale's address, `scale` the scale.
template <class Call, class Output, class Pointer, class Scale>
void add_output_scale_rules(std::vector<Rule<Call>>& rules, Output output, Pointer pointer,
                            Scale scale) {
  const auto add = [&](auto apply) {
    rules.push_back({"output_scale", MLA_ERROR_INVALID_ARGUMENT, apply});
  };
  // A scale without fp8, fp8 without a scale: both together would be well formed.
  add([=](Call& c, Random&) {
    if (output(c).dtype != MLA_DTYPE_FLOAT8_E4M3FN) pointer(c) = &scale(c);
  });
  add([=](Call& c, Random&) {
    if (pointer(c) == nullptr) output(c).dtype = MLA_DTYPE_FLOAT8_E4M3FN;
  });
  add([=](Call& c, Random& random) {
    output(c).dtype = MLA_DTYPE_FLOAT8_E4M3FN;
    pointer(c) = &scale(c);
    scale(c) = random.any_of({0.0F, -1.0F, 1e38F, 1e-38F, 1e-45F, INFINITY, -INFINITY, NAN});
  });
}

}  // namespace malformed
