// Problems of the lightning indexer, and what comes out by definition, in double precision.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "support.hpp"

namespace test {

struct IndexShape {
  std::int32_t q, cached;
  std::int64_t heads, head_dim, block_size;
  std::int32_t topk;
  std::int32_t format = MLA_INDEX_FORMAT_PLAIN;
  bool quantize_q = false;
  std::int32_t scale_format = MLA_INDEX_SCALE_FP32;
  bool has_visible_keys = false;
  /// A block for each request, and no table.
  bool is_dense = false;
  /// Between rows.
  std::int64_t padding = 0;

  bool is_scaled() const { return format == MLA_INDEX_FORMAT_FP8_BLOCK; }
};

/// A token's score for a key, and how far off it may be.
struct IndexScore {
  double value, bound;
};

struct IndexRequest {
  std::int32_t context, new_tokens;
};

struct IndexProblem {
  IndexProblem(const IndexShape& of_shape, std::vector<IndexRequest> of_requests, unsigned seed)
      : shape(of_shape),
        requests(std::move(of_requests)),
        random(seed),
        blocks(shape.is_dense ? count() : 2 + below(40)),
        block_size(shape.is_dense ? std::max<std::int64_t>(1, longest()) : shape.block_size),
        // Of scaled keys all of a block lies side by side.
        cache(shape.cached, {blocks, block_size, shape.head_dim + (shape.is_scaled() ? 4 : 0)},
              shape.is_scaled() ? 0 : shape.padding),
        q(shape.q, {rows() + 1, shape.heads, shape.head_dim}, shape.padding),
        weights(MLA_DTYPE_FLOAT32, {rows() + 1, shape.heads}, shape.padding),
        scores(MLA_DTYPE_FLOAT32, {rows() + 1, shape.topk}, shape.padding),
        topk_stride(shape.topk + shape.padding),
        indices(static_cast<std::size_t>((rows() + 1) * topk_stride), untouched) {
    query_start_loc.push_back(0);
    for (const IndexRequest& request : requests) {
      query_start_loc.push_back(query_start_loc.back() + request.new_tokens);
      context_lens.push_back(request.context);
      for (std::int32_t j = 0; j < request.new_tokens; ++j) {
        const std::int32_t keys = request.context + request.new_tokens;
        visible_keys.push_back(shape.has_visible_keys ? below(keys + 1) : request.context + j + 1);
      }
    }
    // Of the row that is no request's.
    visible_keys.push_back(-5);
    if (!shape.is_dense) choose_blocks();
    fill();
  }

  mla_index_select_args args() const {
    mla_index_select_args a = MLA_INDEX_SELECT_ARGS_INIT;
    a.num_requests = count();
    a.query_start_loc = query_start_loc.data();
    a.context_lens = context_lens.data();
    a.visible_keys = shape.has_visible_keys ? visible_keys.data() : nullptr;
    a.q = &q.view();
    a.weights = &weights.view();
    a.format = shape.format;
    a.topk = shape.topk;
    a.quantize_q = shape.quantize_q ? 1 : 0;
    a.scale_format = shape.scale_format;
    a.index_cache = &cache.view();
    a.block_table = shape.is_dense ? nullptr : block_table.data();
    a.block_table_stride = max_blocks + 1;
    a.max_blocks = static_cast<std::int32_t>(max_blocks);
    a.topk_indices = indices.data();
    a.topk_stride = topk_stride;
    a.scores = &scores.view();
    return a;
  }

  /// Of row `row` and key `key` of request `request`.
  IndexScore score(std::int32_t request, std::int64_t row, std::int32_t key) const {
    double sum = 0, sizes = 0;
    const auto [block, offset] = slot(request, key);
    for (std::int64_t h = 0; h < shape.heads; ++h) {
      double product = 0, size = 0;
      const double scale = query_scale(row, h);
      for (std::int64_t d = 0; d < shape.head_dim; ++d) {
        const double term = query(row, h, d, scale) * key_at(block, offset, d);
        product += term, size += std::fabs(term);
      }
      const double weight = weights.at(row, h) * scale;
      sum += weight * std::max(product, 0.0), sizes += std::fabs(weight) * size;
    }
    const double scale = key_scale(block, offset);
    // A quantized query's weight is rounded once more.
    const double steps = static_cast<double>(shape.head_dim + shape.heads + 2 + (shape.quantize_q ? 1 : 0));
    return {scale * sum, steps * std::ldexp(1.0, -24) * scale * sizes};
  }

  /// Every row that is worked on: as many keys as there are, ascending, none of which is below one
  /// that was left out.
  void expect_selected(const std::string& what, std::int64_t first = 0, std::int64_t end = INT64_MAX) const {
    for (std::int32_t i = 0; i < count(); ++i) {
      for (std::int64_t row = at(query_start_loc, i); row < at(query_start_loc, i + 1); ++row) {
        if (row >= first && row < end) expect_row(what, i, row);
        else expect_untouched(what, row);
      }
    }
    expect_untouched(what, rows());
    CHECK(scores.gaps_are_intact());
    for (std::int64_t row = 0; row <= rows(); ++row) {
      for (std::int64_t k = shape.topk; k < topk_stride; ++k) CHECK(at(indices, row * topk_stride + k) == untouched);
    }
  }

  std::int32_t count() const { return static_cast<std::int32_t>(requests.size()); }
  std::int64_t rows() const {
    return std::accumulate(requests.begin(), requests.end(), std::int64_t{0},
                           [](std::int64_t sum, const IndexRequest& r) { return sum + r.new_tokens; });
  }
  std::int32_t below(std::int64_t end) { return static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(end)); }
  static std::int64_t at(const Offsets& numbers, std::int64_t i) { return numbers[static_cast<std::size_t>(i)]; }
  std::vector<std::int32_t> selected(std::int64_t row) const {
    const auto begin = indices.begin() + row * topk_stride;
    return {begin, begin + shape.topk};
  }
  void clear() {
    std::fill(indices.begin(), indices.end(), untouched);
    scores = Array(MLA_DTYPE_FLOAT32, {rows() + 1, shape.topk}, shape.padding);
  }
  std::pair<std::int64_t, std::int64_t> slot(std::int32_t request, std::int64_t key) const {
    return {shape.is_dense ? request : at(block_table, request * (max_blocks + 1) + key / block_size),
            key % block_size};
  }
  float* key_scale_at(std::int64_t block, std::int64_t offset) const {
    return reinterpret_cast<float*>(static_cast<char*>(cache.view().data) + block * cache.view().strides[0] +
                                    block_size * shape.head_dim + offset * 4);
  }
  std::uint8_t* key_codes_at(std::int64_t block, std::int64_t offset) const {
    return static_cast<std::uint8_t*>(cache.view().data) + block * cache.view().strides[0] + offset * shape.head_dim;
  }

  static constexpr std::int32_t untouched = -77;

  IndexShape shape;
  std::vector<IndexRequest> requests;
  std::mt19937 random;
  std::int64_t blocks, block_size, max_blocks = 0;
  Array cache, q, weights, scores;
  std::int64_t topk_stride;
  // What a const problem is asked to write.
  mutable Offsets indices;
  Offsets query_start_loc, context_lens, visible_keys, block_table;

 private:
  std::int64_t longest() const {
    std::int64_t most = 0;
    for (const IndexRequest& r : requests) most = std::max<std::int64_t>(most, r.context + r.new_tokens);
    return most;
  }

  /// Blocks in any order, some of them of several requests. What nobody may read is no number of
  /// a block.
  void choose_blocks() {
    max_blocks = (longest() + block_size - 1) / block_size + 1;
    block_table.assign(static_cast<std::size_t>((max_blocks + 1) * count()), -9);
    for (std::int32_t i = 0; i < count(); ++i) {
      std::int32_t keys = 0;
      for (std::int64_t row = at(query_start_loc, i); row < at(query_start_loc, i + 1); ++row) {
        keys = std::max(keys, visible_keys[static_cast<std::size_t>(row)]);
      }
      for (std::int64_t j = 0; j * block_size < keys; ++j) {
        const std::int64_t place = i * (max_blocks + 1) + j;
        const bool follows = j > 0 && below(2) == 0;
        block_table[static_cast<std::size_t>(place)] =
            static_cast<std::int32_t>(follows ? (at(block_table, place - 1) + 1) % blocks : below(blocks));
      }
    }
  }

  void fill() {
    q.fill(random);
    weights.fill(random);
    if (!shape.is_scaled()) {
      cache.fill(random);
      return;
    }
    std::normal_distribution<double> normal(0.0, 60.0);
    for (std::int64_t block = 0; block < blocks; ++block) {
      for (std::int64_t offset = 0; offset < block_size; ++offset) {
        for (std::int64_t d = 0; d < shape.head_dim; ++d) key_codes_at(block, offset)[d] = float8_bits(normal(random));
        const float scale = 0.001F * static_cast<float>(1 + below(1000));
        std::memcpy(key_scale_at(block, offset), &scale, sizeof scale);
      }
    }
  }

  double key_at(std::int64_t block, std::int64_t offset, std::int64_t d) const {
    return shape.is_scaled() ? float8_value(key_codes_at(block, offset)[d]) : cache.at(block, offset, d);
  }
  double key_scale(std::int64_t block, std::int64_t offset) const {
    if (!shape.is_scaled()) return 1;
    float scale;
    std::memcpy(&scale, key_scale_at(block, offset), sizeof scale);
    return static_cast<double>(scale);
  }

  double query_scale(std::int64_t row, std::int64_t h) const {
    if (!shape.quantize_q) return 1;
    float largest = 1e-4F;
    for (std::int64_t d = 0; d < shape.head_dim; ++d) {
      largest = std::max(largest, std::fabs(static_cast<float>(q.at(row, h, d))));
    }
    const float scale = largest / 448.0F;
    if (shape.scale_format == MLA_INDEX_SCALE_FP32) return static_cast<double>(scale);
    return std::exp2(std::ceil(std::log2(static_cast<double>(scale))));
  }
  double query(std::int64_t row, std::int64_t h, std::int64_t d, double scale) const {
    if (!shape.quantize_q) return q.at(row, h, d);
    return float8_value(float8_bits(static_cast<double>(static_cast<float>(q.at(row, h, d)) / static_cast<float>(scale))));
  }

  void expect_untouched(const std::string& what, std::int64_t row) const {
    for (const std::int32_t index : selected(row)) {
      EXPECT(index == untouched, "%s: row %d was written", what.c_str(), static_cast<int>(row));
    }
    for (std::int64_t k = 0; k < shape.topk; ++k) {
      EXPECT(std::isnan(scores.at(row, k)), "%s: scores of row %d were written", what.c_str(), static_cast<int>(row));
    }
  }

  void expect_row(const std::string& what, std::int32_t request, std::int64_t row) const {
    const std::string name = what + ", row " + std::to_string(row);
    const std::int32_t visible = visible_keys[static_cast<std::size_t>(row)];
    const std::vector<std::int32_t> got = selected(row);
    const std::int32_t wanted = std::min(visible, shape.topk);
    std::vector<bool> is_selected(static_cast<std::size_t>(visible), false);
    for (std::int32_t k = 0; k < shape.topk; ++k) {
      const std::int32_t index = got[static_cast<std::size_t>(k)];
      if (k >= wanted) {
        EXPECT(index == -1, "%s: %d behind the last", name.c_str(), index);
        EXPECT(scores.at(row, k) == -HUGE_VAL, "%s: a score behind the last", name.c_str());
        continue;
      }
      EXPECT(index > (k == 0 ? -1 : got[static_cast<std::size_t>(k - 1)]) && index < visible,
             "%s: place %d is %d of %d keys", name.c_str(), k, index, visible);
      is_selected[static_cast<std::size_t>(index)] = true;
      const IndexScore right = score(request, row, index);
      EXPECT(std::fabs(scores.at(row, k) - right.value) <= right.bound, "%s: score of key %d is %.9g, not %.9g +- %.3g",
             name.c_str(), index, scores.at(row, k), right.value, right.bound);
    }
    // The lowest that was selected by what it may be at most, the highest that was not by what
    // it may be at least.
    double lowest = HUGE_VAL, highest = -HUGE_VAL;
    for (std::int32_t key = 0; key < visible; ++key) {
      const IndexScore right = score(request, row, key);
      if (is_selected[static_cast<std::size_t>(key)]) lowest = std::min(lowest, right.value + right.bound);
      else highest = std::max(highest, right.value - right.bound);
    }
    EXPECT(lowest >= highest, "%s: a key of %.9g was selected before one of %.9g", name.c_str(), lowest, highest);
  }
};

}  // namespace test
