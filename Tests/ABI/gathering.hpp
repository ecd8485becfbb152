// Problems of gathering from a paged cache, and what comes out by definition.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "support.hpp"

namespace test {

struct GatherShape {
  std::int32_t dtype, cached;
  std::int64_t rank, rope, block_size;
  std::int32_t format = MLA_CACHE_FORMAT_PLAIN;
  /// Whether k_pe has a tensor of its own in the cache; among the outputs.
  bool two_caches = false, two_outputs = false;
  /// A block for each request, and no table.
  bool is_dense = false;
  /// Between rows.
  std::int64_t padding = 0;

  bool is_plain() const { return format == MLA_CACHE_FORMAT_PLAIN; }
  std::int64_t slot_width() const { return is_plain() ? rank + (two_caches ? 0 : rope) : 656; }
};

struct GatherProblem {
  GatherProblem(const GatherShape& of_shape, const std::vector<std::int32_t>& lengths, unsigned seed)
      : shape(of_shape),
        requests(static_cast<std::int32_t>(lengths.size())),
        random(seed),
        blocks(shape.is_dense ? requests : 23),
        block_size(shape.is_dense ? 64 : shape.block_size),
        cache(shape.cached, {blocks, block_size, shape.slot_width()}, shape.padding),
        rope_cache(shape.cached, {blocks, block_size, shape.rope}, shape.padding),
        dst(shape.dtype, {0, 0}),
        k_pe(shape.dtype, {0, 0}) {
    cu_seq_lens.push_back(0);
    for (const std::int32_t length : lengths) {
      cu_seq_lens.push_back(cu_seq_lens.back() + length);
      // Nobody reads where a request without rows begins.
      seq_starts.push_back(length == 0 ? -5 : below(shape.is_dense ? 64 - length + 1 : 50));
    }
    // One that is no request's.
    const std::int64_t rows = cu_seq_lens.back() + 1;
    dst = Array(shape.dtype, {rows, shape.rank + (shape.two_outputs ? 0 : shape.rope)}, shape.padding);
    k_pe = Array(shape.dtype, {rows, shape.rope}, shape.padding);
    if (!shape.is_dense) choose_blocks();
    fill();
  }

  /// Of the host.
  mla_gather_cache_args args() const {
    mla_gather_cache_args a = MLA_GATHER_CACHE_ARGS_INIT;
    a.cache_scale = scale();
    a.kv_cache = &cache.view();
    a.k_pe_cache = shape.two_caches ? &rope_cache.view() : nullptr;
    a.cache_format = shape.format;
    a.num_requests = requests;
    a.block_table = shape.is_dense ? nullptr : block_table.data();
    a.block_table_stride = max_blocks;
    a.max_blocks = static_cast<std::int32_t>(max_blocks);
    a.cu_seq_lens = cu_seq_lens.data();
    a.seq_starts = seq_starts.data();
    a.dst = &dst.view();
    a.k_pe = shape.two_outputs ? &k_pe.view() : nullptr;
    return a;
  }

  float scale() const { return shape.is_plain() && shape.cached == MLA_DTYPE_FLOAT8_E4M3FN ? 0.3F : 1.0F; }

  void expect_gathered(const std::string& what) const {
    for (std::int32_t i = 0; i < requests; ++i) {
      for (std::int64_t row = at(cu_seq_lens, i); row < at(cu_seq_lens, i + 1); ++row) {
        const std::int64_t position = at(seq_starts, i) + row - at(cu_seq_lens, i);
        const std::int64_t block = shape.is_dense ? i : at(block_table, i * max_blocks + position / block_size);
        for (std::int64_t d = 0; d < shape.rank + shape.rope; ++d) {
          Array right(shape.dtype, {1, 1});
          right.set(0, 0, 0, cached(block, position % block_size, d));
          const bool is_apart = shape.two_outputs && d >= shape.rank;
          const double got = is_apart ? k_pe.at(row, d - shape.rank) : dst.at(row, d), expected = right.at(0, 0);
          EXPECT(std::memcmp(&got, &expected, sizeof got) == 0 || (std::isnan(got) && std::isnan(expected)),
                 "%s: row %d, %d is %g, not %g", what.c_str(), static_cast<int>(row), static_cast<int>(d), got, expected);
        }
      }
    }
    expect_nothing_else(dst, what);
    if (shape.two_outputs) expect_nothing_else(k_pe, what);
  }

  GatherShape shape;
  std::int32_t requests;
  std::mt19937 random;
  std::int64_t blocks, block_size, max_blocks = 0;
  Array cache, rope_cache, dst, k_pe;
  Offsets block_table, cu_seq_lens, seq_starts;

 private:
  static std::int64_t at(const Offsets& numbers, std::int64_t i) { return numbers[static_cast<std::size_t>(i)]; }
  std::int32_t below(std::int64_t end) { return static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(end)); }

  /// Blocks in any order, some of them of several requests. What nobody may read is no number of
  /// a block.
  void choose_blocks() {
    std::int64_t longest = 0;
    for (std::int32_t i = 0; i < requests; ++i) {
      longest = std::max(longest, at(seq_starts, i) + at(cu_seq_lens, i + 1) - at(cu_seq_lens, i));
    }
    max_blocks = (longest + block_size - 1) / block_size + 1;
    block_table.assign(static_cast<std::size_t>(max_blocks * requests), -9);
    for (std::int32_t i = 0; i < requests; ++i) {
      const std::int64_t length = at(cu_seq_lens, i + 1) - at(cu_seq_lens, i), start = at(seq_starts, i);
      for (std::int64_t j = start / block_size; length > 0 && j * block_size < start + length; ++j) {
        const bool follows = j > 0 && below(2) == 0 && at(block_table, i * max_blocks + j - 1) >= 0;
        const std::int64_t next = follows ? at(block_table, i * max_blocks + j - 1) + 1 : below(blocks);
        block_table[static_cast<std::size_t>(i * max_blocks + j)] = static_cast<std::int32_t>(next % blocks);
      }
    }
  }

  void fill() {
    cache.fill(random, 8);
    rope_cache.fill(random, 8);
    cache.set(0, 0, 1, NAN), cache.set(blocks - 1, 0, 2, HUGE_VAL), cache.set(1 % blocks, block_size - 1, 0, 1e-8);
    if (shape.is_plain()) return;
    const float scales[] = {0.125F, 0.3F, 1.0F, 0x1p-13F, 1e-39F, 60000.0F};
    cache.each([&](std::int64_t block, std::int64_t offset, std::int64_t k) {
      if (k < 4) std::memcpy(slot(block, offset) + 512 + 4 * k, &scales[below(6)], 4);
      if (k < 64) store(slot(block, offset) + 528 + 2 * k, MLA_DTYPE_BFLOAT16, below(100) / 7.0 - 5);
    });
  }

  std::uint8_t* slot(std::int64_t block, std::int64_t offset) const {
    return static_cast<std::uint8_t*>(cache.view().data) + block * cache.view().strides[0] +
           offset * cache.view().strides[1];
  }

  /// A product is fp32's.
  double cached(std::int64_t block, std::int64_t offset, std::int64_t d) const {
    if (!shape.is_plain()) {
      if (d >= shape.rank) return load(slot(block, offset) + 528 + 2 * (d - shape.rank), MLA_DTYPE_BFLOAT16);
      float of_group;
      std::memcpy(&of_group, slot(block, offset) + 512 + d / 128 * 4, sizeof of_group);
      return static_cast<double>(static_cast<float>(cache.at(block, offset, d)) * of_group);
    }
    const bool is_apart = shape.two_caches && d >= shape.rank;
    const double value = is_apart ? rope_cache.at(block, offset, d - shape.rank) : cache.at(block, offset, d);
    return static_cast<double>(static_cast<float>(value) * scale());
  }

  /// Rows behind the last, and gaps, are as they were.
  void expect_nothing_else(const Array& output, const std::string& what) const {
    Array rest = output;
    for (std::int64_t row = 0; row < cu_seq_lens.back(); ++row) {
      for (std::int64_t d = 0; d < rest.size(1); ++d) {
        std::memset(static_cast<std::uint8_t*>(rest.view().data) +
                        static_cast<std::size_t>(row * rest.view().strides[0] + d) * element_size(shape.dtype),
                    0xFF, element_size(shape.dtype));
      }
    }
    EXPECT(std::all_of(rest.bytes().begin(), rest.bytes().end(), [](std::uint8_t byte) { return byte == 0xFF; }),
           "%s: wrote where no row is", what.c_str());
  }
};

/// Every dtype into every other, caches and outputs of one tensor and of two, and fp8_ds_mla.
inline std::vector<std::pair<std::string, GatherShape>> gather_shapes() {
  std::vector<std::pair<std::string, GatherShape>> shapes;
  for (const std::int32_t dtype : {MLA_DTYPE_BFLOAT16, MLA_DTYPE_FLOAT16, MLA_DTYPE_FLOAT32}) {
    for (const std::int32_t cached :
         {MLA_DTYPE_BFLOAT16, MLA_DTYPE_FLOAT16, MLA_DTYPE_FLOAT32, MLA_DTYPE_FLOAT8_E4M3FN}) {
      const std::string name = std::string(dtype_name(cached)) + " to " + dtype_name(dtype);
      const GatherShape plain{dtype, cached, 64, 32, 4};
      GatherShape odd = plain, apart = plain, dense = plain, bare = plain;
      odd.rank = 33, odd.rope = 7, odd.block_size = 5, odd.padding = 3, odd.two_outputs = true;
      apart.two_caches = true, apart.block_size = 1;
      dense.is_dense = dense.two_caches = dense.two_outputs = true;
      bare.rope = 0;
      shapes.insert(shapes.end(), {{name, plain}, {name + ", odd rows", odd}, {name + ", two caches", apart},
                                   {name + ", dense", dense}, {name + " without rope", bare}});
    }
    const std::string name = std::string("fp8_ds_mla to ") + dtype_name(dtype);
    const GatherShape scaled{dtype, MLA_DTYPE_FLOAT8_E4M3FN, 512, 64, 8, MLA_CACHE_FORMAT_FP8_DS_MLA};
    GatherShape apart = scaled, bare = scaled;
    apart.two_outputs = true, apart.block_size = 3, apart.padding = 2;
    bare.rope = 0;
    shapes.insert(shapes.end(), {{name, scaled}, {name + ", two outputs", apart}, {name + ", latents alone", bare}});
  }
  return shapes;
}

}  // namespace test
