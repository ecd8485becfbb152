// Problems of attention in one call, in tensors of 3 or 4 dimensions and of any layout, and
// their float64 results.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "../support.hpp"

namespace test {

/// [batch, tokens, heads, dim], whatever the order in memory. What no one has written is NaN.
class Rows {
 public:
  Rows(std::int32_t dtype, std::vector<std::int64_t> shape, bool heads_first, std::int64_t padding)
      : dtype_(dtype), shape_(std::move(shape)) {
    std::int64_t stride = 1;
    for (std::size_t i : heads_first ? std::vector<std::size_t>{3, 1, 2, 0}
                                     : std::vector<std::size_t>{3, 2, 1, 0}) {
      strides_[i] = stride;
      stride = stride * shape_[i] + padding;
    }
    bytes.assign(static_cast<std::size_t>(stride) * element_size(dtype), 0xFF);
  }

  std::int64_t size(std::size_t dimension) const { return shape_[dimension]; }

  double at(std::int64_t b, std::int64_t t, std::int64_t h, std::int64_t d) const {
    return load(bytes.data() + offset(b, t, h, d), dtype_);
  }
  void set(std::int64_t b, std::int64_t t, std::int64_t h, std::int64_t d, double value) {
    store(bytes.data() + offset(b, t, h, d), dtype_, value);
  }
  void fill_row(std::int64_t b, std::int64_t t, std::mt19937& random) {
    std::normal_distribution<double> normal;
    for (std::int64_t h = 0; h < shape_[2]; ++h) {
      for (std::int64_t d = 0; d < shape_[3]; ++d) set(b, t, h, d, normal(random));
    }
  }
  bool is_unwritten(std::int64_t b, std::int64_t t) const {
    for (std::int64_t h = 0; h < shape_[2]; ++h) {
      for (std::int64_t d = 0; d < shape_[3]; ++d) {
        const std::uint8_t* element = bytes.data() + offset(b, t, h, d);
        if (std::any_of(element, element + element_size(dtype_),
                        [](std::uint8_t byte) { return byte != 0xFF; })) {
          return false;
        }
      }
    }
    return true;
  }

  /// As the call takes it; of 3 dimensions where there is no batch.
  mla::tensor view(int dimensions) {
    return dimensions == 3 ? mla::tensor(bytes.data(), dtype_, {shape_[1], shape_[2], shape_[3]},
                                         {strides_[1], strides_[2], 1})
                           : mla::tensor(bytes.data(), dtype_,
                                         {shape_[0], shape_[2], shape_[1], shape_[3]},
                                         {strides_[0], strides_[2], strides_[1], 1});
  }

  std::vector<std::uint8_t> bytes;

 private:
  std::size_t offset(std::int64_t b, std::int64_t t, std::int64_t h, std::int64_t d) const {
    return static_cast<std::size_t>(b * strides_[0] + t * strides_[1] + h * strides_[2] + d) *
           element_size(dtype_);
  }

  std::int32_t dtype_;
  std::vector<std::int64_t> shape_;
  std::int64_t strides_[4] = {};
};

/// A request's rows of q, and the keys that it sees any of.
struct Request {
  std::int64_t batch, query, queries, key, keys;

  /// How many of its keys query i sees.
  std::int64_t seen(std::int64_t i, std::int32_t causal) const {
    const std::int64_t end = causal == MLA_CAUSAL_NONE    ? keys
                             : causal == MLA_CAUSAL_START ? i + 1
                                                          : i + 1 + keys - queries;
    return std::max<std::int64_t>(0, std::min(end, keys));
  }
};

struct OneCallShape {
  std::int32_t dtype = MLA_DTYPE_BFLOAT16;
  std::int64_t heads = 1, kv_heads = 1, dim = 16, v_dim = 16;
  std::int32_t causal = MLA_CAUSAL_NONE;
};

/// A call: its tensors, its requests, and what it says of them.
struct OneCall {
  /// With 3 dimensions the batch is 1; padded rows of q and k belong to nobody.
  OneCall(const OneCallShape& made_for, int number_of_dimensions, std::vector<Request> list,
          std::int64_t batch, std::int64_t rows, std::int64_t keys, std::mt19937& random)
      : shape(made_for),
        dimensions(number_of_dimensions),
        requests(std::move(list)),
        q(shape.dtype, {batch, rows, shape.heads, shape.dim}, random() % 2 == 0, random() % 2 * 8),
        k(shape.dtype, {batch, keys, shape.kv_heads, shape.dim}, random() % 2 == 0,
          random() % 2 * 8),
        v(shape.dtype, {batch, keys, shape.kv_heads, shape.v_dim}, random() % 2 == 0,
          random() % 2 * 8),
        out(shape.dtype, {batch, rows, shape.heads, shape.v_dim}, random() % 2 == 0,
            random() % 2 * 8),
        // [batch, heads, rows], dense.
        lse(MLA_DTYPE_FLOAT32, {batch, shape.heads, rows, 1}, false, 0) {
    for (const Request& r : requests) {
      for (std::int64_t i = 0; i < r.queries; ++i) q.fill_row(r.batch, r.query + i, random);
      // What no query sees stays NaN.
      const std::int64_t seen = r.queries > 0 ? r.seen(r.queries - 1, shape.causal) : 0;
      for (std::int64_t j = 0; j < seen; ++j) {
        if (!k.is_unwritten(r.batch, r.key + j)) continue;
        k.fill_row(r.batch, r.key + j, random);
        v.fill_row(r.batch, r.key + j, random);
      }
    }
  }

  double scale() const { return 1 / std::sqrt(static_cast<double>(shape.dim)); }

  /// The call with these arguments for its tensors' places; nothing else is filled in.
  template <class Call>
  void with_args(Call call) {
    mla::tensor tensors[] = {q.view(dimensions), k.view(dimensions), v.view(dimensions),
                             out.view(dimensions)};
    mla::tensor sums = dimensions == 3
                           ? mla::tensor(lse.bytes.data(), MLA_DTYPE_FLOAT32,
                                         {lse.size(1), lse.size(2)})
                           : mla::tensor(lse.bytes.data(), MLA_DTYPE_FLOAT32,
                                         {lse.size(0), lse.size(1), lse.size(2)});
    mla_attention_args args = MLA_ATTENTION_ARGS_INIT;
    args.q = &tensors[0], args.k = &tensors[1], args.v = &tensors[2], args.out = &tensors[3];
    args.lse = &sums;
    args.scale = scale();
    args.causal = shape.causal;
    args.max_isa = max_isa;
    args.num_requests = dimensions == 3 ? static_cast<std::int32_t>(requests.size()) : 0;
    args.cu_seqlens_q = cu_seqlens_q.empty() ? nullptr : cu_seqlens_q.data();
    args.cu_seqlens_k = cu_seqlens_k.empty() ? nullptr : cu_seqlens_k.data();
    args.k_begin = k_begin.empty() ? nullptr : k_begin.data();
    args.k_count = k_count.empty() ? nullptr : k_count.data();
    call(args);
  }

  void run() {
    std::fill(out.bytes.begin(), out.bytes.end(), std::uint8_t{0xFF});
    std::fill(lse.bytes.begin(), lse.bytes.end(), std::uint8_t{0xFF});
    with_args([](const mla_attention_args& args) { mla::attention(args); });
  }

  OneCallShape shape;
  int dimensions;
  std::vector<Request> requests;
  Offsets cu_seqlens_q, cu_seqlens_k, k_begin, k_count;
  std::int32_t max_isa = MLA_ISA_DEFAULT;
  Rows q, k, v, out, lse;
};

/// What float64 makes of one query and head.
struct ExpectedRow {
  std::int64_t batch, row, head;
  std::vector<double> out;
  double lse;
};

inline ExpectedRow expected_row(const OneCall& a, const Request& r, std::int64_t i,
                                std::int64_t head) {
  const std::int64_t kv_head = head / (a.shape.heads / a.shape.kv_heads), row = r.query + i;
  std::vector<double> query, weights, out(static_cast<std::size_t>(a.shape.v_dim));
  for (std::int64_t d = 0; d < a.shape.dim; ++d) query.push_back(a.q.at(r.batch, row, head, d));
  double largest = -INFINITY, sum = 0;
  for (std::int64_t j = 0; j < r.seen(i, a.shape.causal); ++j) {
    double dot = 0;
    for (std::int64_t d = 0; d < a.shape.dim; ++d) {
      dot += query[static_cast<std::size_t>(d)] * a.k.at(r.batch, r.key + j, kv_head, d);
    }
    weights.push_back(dot * a.scale());
    largest = std::max(largest, weights.back());
  }
  for (double& weight : weights) sum += weight = std::exp(weight - largest);
  for (std::size_t j = 0; j < weights.size(); ++j) {
    const std::int64_t key = r.key + static_cast<std::int64_t>(j);
    for (std::int64_t d = 0; d < a.shape.v_dim; ++d) {
      out[static_cast<std::size_t>(d)] += weights[j] / sum * a.v.at(r.batch, key, kv_head, d);
    }
  }
  return {r.batch, row, head, out, weights.empty() ? -INFINITY : std::log(sum) + largest};
}

/// Of long requests the first queries, the last ones and some others, of many heads some.
inline std::vector<ExpectedRow> expected_rows(const OneCall& a) {
  std::vector<ExpectedRow> rows;
  for (const Request& r : a.requests) {
    for (std::int64_t i = 0; i < r.queries; ++i) {
      if (i > 1 && i < r.queries - 2 && i % 11 != 0) continue;
      for (std::int64_t head = 0; head < a.shape.heads; ++head) {
        if (a.shape.heads > 8 && (head + i) % 5 != 0) continue;
        rows.push_back(expected_row(a, r, i, head));
      }
    }
  }
  return rows;
}

/// Fails unless results are close to float64's, and rows of nobody as they were.
inline void expect_close(const OneCall& a, const std::vector<ExpectedRow>& rows,
                         const std::string& what) {
  const Bounds bounds = Bounds::of(a.shape.dtype);
  RelativeError error;
  for (const ExpectedRow& r : rows) {
    const std::string name = what + ", row " + std::to_string(r.batch) + "/" +
                             std::to_string(r.row) + ", head " + std::to_string(r.head);
    const double lse = a.lse.at(r.batch, r.head, r.row, 0);
    EXPECT(lse == r.lse || std::fabs(lse - r.lse) <= bounds.lse, "%s: lse is %g, not %g",
           name.c_str(), lse, r.lse);
    for (std::size_t d = 0; d < r.out.size(); ++d) {
      const double value = a.out.at(r.batch, r.row, r.head, static_cast<std::int64_t>(d));
      EXPECT(!std::isnan(value), "%s: NaN in out", name.c_str());
      error.add(value, r.out[d]);
    }
  }
  EXPECT(error.value() <= bounds.out, "%s: out is off by %.2e", what.c_str(), error.value());
  for (std::int64_t b = 0; b < a.q.size(0); ++b) {
    for (std::int64_t t = 0; t < a.q.size(1); ++t) {
      const bool is_used = std::any_of(
          a.requests.begin(), a.requests.end(), [&](const Request& r) {
            return r.batch == b && r.query <= t && t < r.query + r.queries;
          });
      EXPECT(is_used || a.out.is_unwritten(b, t), "%s: row %lld is nobody's, and written",
             what.c_str(), static_cast<long long>(t));
    }
  }
}

}  // namespace test
