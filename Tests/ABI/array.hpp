// Poisoned tensors of any dtype.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "mla_prefill.hpp"

namespace test {

inline std::size_t element_size(std::int32_t dtype) {
  return dtype == MLA_DTYPE_FLOAT32 ? 4 : dtype == MLA_DTYPE_FLOAT8_E4M3FN ? 1 : 2;
}

inline const char* dtype_name(std::int32_t dtype) {
  static const char* const names[] = {"none", "fp32", "fp16", "bf16", "fp8"};
  return names[dtype];
}

inline double half_value(std::uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent == 31) return fraction != 0 ? std::nan("") : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

/// Round to nearest, ties to even; overflow to infinity.
inline std::uint16_t half_bits(double value) {
  const std::uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const double size = std::fabs(value);
  if (std::isnan(value)) return static_cast<std::uint16_t>(sign | 0x7E00);
  if (size >= 65520) return static_cast<std::uint16_t>(sign | 0x7C00);
  int exponent = size == 0 ? -14 : std::max(std::ilogb(size), -14);
  double units = std::nearbyint(std::ldexp(size, 10 - exponent));
  if (units >= 2048) {
    units /= 2;
    ++exponent;
  }
  const int bits = units < 1024 ? static_cast<int>(units)
                                : ((exponent + 15) << 10) + static_cast<int>(units) - 1024;
  return static_cast<std::uint16_t>(sign | bits);
}

inline double float8_value(std::uint8_t bits) {
  const int exponent = bits >> 3 & 15, fraction = bits & 7;
  const double sign = (bits & 0x80) != 0 ? -1.0 : 1.0;
  if ((bits & 0x7F) == 0x7F) return std::nan("");
  return sign * (exponent == 0 ? std::ldexp(fraction, -9) : std::ldexp(8 + fraction, exponent - 10));
}

/// Round to nearest, ties to even; saturates at 448.
inline std::uint8_t float8_bits(double value) {
  if (std::isnan(value)) return std::signbit(value) ? 0xFF : 0x7F;
  const double size = std::min(std::fabs(value), 448.0);
  int exponent = size == 0 ? -6 : std::max(std::ilogb(size), -6);
  double units = std::nearbyint(std::ldexp(size, 3 - exponent));
  if (units >= 16) {
    units /= 2;
    ++exponent;
  }
  const int bits = units < 8 ? static_cast<int>(units)
                             : ((exponent + 7) << 3) + static_cast<int>(units) - 8;
  return static_cast<std::uint8_t>((std::signbit(value) ? 0x80 : 0) | bits);
}

inline double load(const void* at, std::int32_t dtype) {
  if (dtype == MLA_DTYPE_FLOAT8_E4M3FN) {
    return float8_value(*static_cast<const std::uint8_t*>(at));
  }
  if (dtype == MLA_DTYPE_FLOAT32) {
    float value;
    std::memcpy(&value, at, sizeof(value));
    return static_cast<double>(value);
  }
  std::uint16_t bits;
  std::memcpy(&bits, at, sizeof(bits));
  if (dtype == MLA_DTYPE_FLOAT16) return half_value(bits);
  const std::uint32_t wide = static_cast<std::uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof(value));
  return static_cast<double>(value);
}

inline void store(void* at, std::int32_t dtype, double value) {
  if (dtype == MLA_DTYPE_FLOAT8_E4M3FN) {
    *static_cast<std::uint8_t*>(at) = float8_bits(value);
    return;
  }
  if (dtype == MLA_DTYPE_FLOAT16) {
    const std::uint16_t bits = half_bits(value);
    std::memcpy(at, &bits, sizeof(bits));
    return;
  }
  const float narrow = static_cast<float>(value);
  if (dtype == MLA_DTYPE_FLOAT32) {
    std::memcpy(at, &narrow, sizeof(narrow));
    return;
  }
  std::uint32_t wide;
  std::memcpy(&wide, &narrow, sizeof(wide));
  const auto bits = static_cast<std::uint16_t>((wide + 0x7FFF + (wide >> 16 & 1)) >> 16);
  std::memcpy(at, &bits, sizeof(bits));
}

/// An owned tensor of two or three dimensions. Every byte starts as 0xFF, which
/// is NaN in all formats: what lies between the rows of a strided tensor poisons
/// a kernel that reads it, and shows one that writes it.
class Array {
 public:
  /// `padding`: elements between the rows of the last dimension, 0 for dense.
  Array(std::int32_t dtype, std::vector<std::int64_t> shape, std::int64_t padding = 0)
      : view_() {
    std::int64_t stride = 1;
    view_.dtype = dtype;
    view_.ndim = static_cast<std::int32_t>(shape.size());
    for (std::size_t i = shape.size(); i-- > 0;) {
      view_.shape[i] = shape[i];
      view_.strides[i] = stride;
      stride *= shape[i];
      if (i + 1 == shape.size()) stride += padding;
    }
    bytes_.assign(static_cast<std::size_t>(stride) * element_size(dtype) + 64, 0xFF);
    view_.data = bytes_.data();
  }
  Array(const Array& other) : view_(other.view_), bytes_(other.bytes_) {
    view_.data = bytes_.data();
  }
  Array& operator=(const Array& other) {
    view_ = other.view_;
    bytes_ = other.bytes_;
    view_.data = bytes_.data();
    return *this;
  }

  const mla::tensor& view() const { return view_; }
  mla::tensor& view() { return view_; }
  const std::vector<std::uint8_t>& bytes() const { return bytes_; }
  std::int64_t size(int dimension) const { return view_.shape[dimension]; }

  double at(std::int64_t i, std::int64_t j, std::int64_t k = 0) const {
    return load(bytes_.data() + offset(i, j, k), view_.dtype);
  }
  void set(std::int64_t i, std::int64_t j, std::int64_t k, double value) {
    store(bytes_.data() + offset(i, j, k), view_.dtype, value);
  }

  /// Whether nothing was written outside the elements.
  bool gaps_are_intact() const {
    std::vector<std::uint8_t> rest = bytes_;
    each([&](std::int64_t i, std::int64_t j, std::int64_t k) {
      std::memset(rest.data() + offset(i, j, k), 0xFF, element_size(view_.dtype));
    });
    return std::all_of(rest.begin(), rest.end(), [](std::uint8_t byte) { return byte == 0xFF; });
  }

  Array& fill(std::mt19937& random, double deviation = 1.0) {
    std::normal_distribution<double> normal(0.0, deviation);
    each([&](std::int64_t i, std::int64_t j, std::int64_t k) { set(i, j, k, normal(random)); });
    return *this;
  }

  template <class Visit>
  void each(Visit visit) const {
    const std::int64_t depth = view_.ndim == 3 ? view_.shape[2] : 1;
    for (std::int64_t i = 0; i < view_.shape[0]; ++i) {
      for (std::int64_t j = 0; j < view_.shape[1]; ++j) {
        for (std::int64_t k = 0; k < depth; ++k) visit(i, j, k);
      }
    }
  }

 private:
  std::size_t offset(std::int64_t i, std::int64_t j, std::int64_t k) const {
    const std::int64_t last = view_.ndim == 3 ? k : 0;
    return static_cast<std::size_t>(i * view_.strides[0] + j * view_.strides[1] + last) *
           element_size(view_.dtype);
  }

  mla::tensor view_;
  std::vector<std::uint8_t> bytes_;
};

}  // namespace test
