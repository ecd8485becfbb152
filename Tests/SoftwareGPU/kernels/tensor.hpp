// Tensors in what is a GPU's memory for a test: rows that lie apart, everything around and
// between them a NaN of known bits. A kernel that reads there spreads the NaN, one that
// writes there is found, one that reaches past the whole is refused by the machine.
#pragma once

#include <mla_cuda_kernels.h>

#include <cstdint>
#include <string>
#include <vector>

#include "random.hpp"

enum class Format { fp32, fp16, bf16, fp8 };

int bytes_of(Format format);
const char* name_of(Format format);
/// MLA_DTYPE_*.
int dtype_of(Format format);
/// A NaN that no computation produces.
std::uint32_t poison_of(Format format);
double value_of(Format format, std::uint32_t bits);
/// Rounded to nearest even; fp8 saturates.
std::uint32_t bits_from(Format format, double value);

/// How rows lie in memory.
enum class Layout {
  dense,
  /// Gaps between heads and rows, all of which begin at multiples of 16 bytes.
  apart,
  /// Heads at odd distances, tokens at multiples of 16 bytes.
  odd,
  /// Likewise the other way round.
  odd_tokens,
  /// Rows whose first element is one past a multiple of 16 bytes.
  shifted,
};
constexpr Layout layouts[] = {Layout::dense, Layout::apart, Layout::odd, Layout::odd_tokens, Layout::shifted};

class Tensor {
 public:
  const Format format;
  const int rows, heads, dim;

  Tensor(Format format, int rows, int heads, int dim, Layout layout = Layout::dense);
  /// Of strides in elements.
  Tensor(Format format, int rows, int heads, int dim, long long token_stride, long long head_stride);
  ~Tensor();
  Tensor(const Tensor&) = delete;
  Tensor& operator=(const Tensor&) = delete;

  double get(int row, int head, int d) const;
  void set(int row, int head, int d, double value);
  std::uint32_t bits(int row, int head, int d) const;
  void set_bits(int row, int head, int d, std::uint32_t bits);
  /// The bits of rows, all heads.
  std::vector<std::uint32_t> bits(int first_row, int count) const;
  std::vector<std::uint32_t> bits() const { return bits(0, rows); }

  void fill(Random& random, double deviation = 1, double mean = 0);
  void copy(const Tensor& other, int from_row, int to_row, int count);
  void fill_with_poison();
  /// Nothing outside the rows from first_row on has been written.
  bool is_intact_outside(int first_row, int count) const;
  bool is_intact() const { return is_intact_outside(0, rows); }

  mla_cuda_rows view() const;

 private:
  long long token_stride, head_stride;
  /// In elements; and how many of these lie before the first row.
  long long extent, lead;
  unsigned char* memory;
  std::size_t memory_bytes;

  void allocate();
  unsigned char* address(int row, int head, int d) const;
  std::uint32_t load(const unsigned char* at) const;
  void store(unsigned char* at, std::uint32_t bits) const;
};
