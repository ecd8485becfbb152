// Attention and merging in float64, straight from the definition.
#pragma once

#include <vector>

#include "tensor.hpp"

struct Results {
  /// [rows, heads, dim].
  std::vector<double> out;
  /// [heads, rows].
  std::vector<double> lse;
};

/// A request's rows.
struct Rows {
  int query, queries, key, keys;
};

/// Rows of no request are NaN.
Results attention(const Tensor& q, const Tensor& k, const Tensor& v, const std::vector<Rows>& requests, double scale,
                  bool is_causal);

/// |a - b| relative to |b|, over all; infinite where one alone is NaN.
double relative_error(const std::vector<double>& a, const std::vector<double>& b);
/// The largest |a - b|; equal infinities are equal.
double largest_error(const std::vector<double>& a, const std::vector<double>& b);
