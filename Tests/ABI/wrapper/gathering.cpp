// SPDX-License-Identifier: Apache-2.0
#include "gathering.hpp"

#include "throws.hpp"

namespace test {

namespace {

constexpr std::int64_t rank = 24, rope = 8, width = rank + rope;
constexpr std::int64_t slots[] = {3, 4, 5, 0, 6, 7};
constexpr std::int32_t block_table[] = {1, 0, 2, 9}, cu_seq_lens[] = {0, 3, 5}, seq_starts[] = {1, 0};
/// Of the tokens that were put there, where the rows come from.
constexpr std::int64_t tokens[] = {1, 2, 3, 4, 5};

Array filled(std::int64_t rows, std::int64_t columns) {
  std::mt19937 random(3);
  return Array(MLA_DTYPE_FLOAT32, {rows, columns}).fill(random);
}

void expect_rows(const Array& got, std::int64_t from, const Array& latents, const Array& k_pe) {
  for (std::int64_t row = 0; row < 5; ++row) {
    for (std::int64_t d = 0; d < got.size(1); ++d) {
      const std::int64_t place = from + d, token = tokens[row];
      CHECK(got.at(row, d) == (place < rank ? latents.at(token, place) : k_pe.at(token, place - rank)));
    }
  }
}

void one_tensor(const Array& latents, const Array& k_pe) {
  const Array cache(MLA_DTYPE_FLOAT32, {3, 3, width}), dst(MLA_DTYPE_FLOAT32, {5, width});
  mla::concat_and_cache_mla(latents.view(), k_pe.view(), cache.view(), slots);
  mla::gather_and_maybe_dequant_cache(cache.view(), dst.view(), block_table, cu_seq_lens, seq_starts);
  expect_rows(dst, 0, latents, k_pe);
}

void two_tensors(const Array& latents, const Array& k_pe) {
  const Array cache(MLA_DTYPE_FLOAT32, {3, 3, rank}), rope_cache(MLA_DTYPE_FLOAT32, {3, 3, rope});
  const Array dst(MLA_DTYPE_FLOAT32, {5, rank}), rope_dst(MLA_DTYPE_FLOAT32, {5, rope});
  mla::concat_and_cache_mla(latents.view(), k_pe.view(), cache.view(), slots, 0, MLA_CACHE_FORMAT_PLAIN,
                            &rope_cache.view());
  mla::gather_and_maybe_dequant_cache(cache.view(), dst.view(), block_table, cu_seq_lens, seq_starts, 0,
                                      MLA_CACHE_FORMAT_PLAIN, &rope_cache.view(), &rope_dst.view());
  expect_rows(dst, 0, latents, k_pe);
  expect_rows(rope_dst, rank, latents, k_pe);
}

/// Of fp8, what a scale multiplies; from the beginning of the one request.
void scaled() {
  Array cache(MLA_DTYPE_FLOAT8_E4M3FN, {2, 3, width});
  cache.each([&](std::int64_t i, std::int64_t j, std::int64_t k) { cache.set(i, j, k, static_cast<double>(i + j)); });
  const Array dst(MLA_DTYPE_FLOAT32, {4, width});
  const std::int32_t table[] = {1, 0}, rows[] = {0, 4};
  mla::gather_and_maybe_dequant_cache(cache.view(), dst.view(), table, rows, {}, 0.5F);
  CHECK(dst.at(0, 0) == 0.5 && dst.at(2, 9) == 1.5 && dst.at(3, 31) == 0);
}

void refusals() {
  const Array cache(MLA_DTYPE_FLOAT32, {3, 3, width}), dst(MLA_DTYPE_FLOAT32, {5, width});
  const auto gather = [&](mla::span<const std::int32_t> table, mla::span<const std::int32_t> rows,
                          mla::span<const std::int32_t> starts) {
    mla::gather_and_maybe_dequant_cache(cache.view(), dst.view(), table, rows, starts);
  };
  const std::int32_t odd[] = {0, 1, 2}, none[] = {0};
  expect_throws(MLA_ERROR_INVALID_ARGUMENT, "block_table: must have as many", [&] { gather(odd, cu_seq_lens, {}); });
  expect_throws(MLA_ERROR_INVALID_ARGUMENT, "block_table: must have as many", [&] { gather(odd, none, {}); });
  expect_throws(MLA_ERROR_INVALID_ARGUMENT, "cu_seq_lens: must have", [&] { gather(block_table, {}, {}); });
  expect_throws(MLA_ERROR_INVALID_ARGUMENT, "seq_starts: must have", [&] { gather(block_table, cu_seq_lens, odd); });
  expect_throws(MLA_ERROR_INVALID_ARGUMENT, "block_table[1][0] = 2147483647: must be 0 to 2", [&] {
    const std::int32_t wrong[] = {1, 0, INT32_MAX, 0};
    gather(wrong, cu_seq_lens, seq_starts);
  });
  gather({}, none, {});
}

}  // namespace

void wrapper_gathering() {
  const Array latents = filled(6, rank), k_pe = filled(6, rope);
  one_tensor(latents, k_pe);
  two_tensors(latents, k_pe);
  scaled();
  refusals();
}

}  // namespace test
