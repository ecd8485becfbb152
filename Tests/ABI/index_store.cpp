// What the indexer puts into its caches, code by code and scale by scale, and queries that are turned
// and quantized as keys are.
//
// SPDX-License-Identifier: Apache-2.0
#include "indexing.hpp"

namespace {

using test::Array;
using test::IndexProblem;
using test::IndexShape;

constexpr std::int32_t plain_types[] = {MLA_DTYPE_BFLOAT16, MLA_DTYPE_FLOAT16, MLA_DTYPE_FLOAT32};

struct Store {
  Store(const Array& k, const Array& cache, const std::vector<std::int64_t>& slots) {
    args.k = &k.view(), args.index_cache = &cache.view();
    args.slot_mapping = slots.data(), args.num_slots = static_cast<std::int64_t>(slots.size());
    if (cache.view().dtype == MLA_DTYPE_FLOAT8_E4M3FN) args.format = MLA_INDEX_FORMAT_FP8_BLOCK;
  }
  void run() { mla::check(mla_index_store(&args)); }

  mla_index_store_args args = MLA_INDEX_STORE_ARGS_INIT;
};

void plain() {
  std::mt19937 random(1);
  for (const std::int32_t from : plain_types) {
    for (const std::int32_t to : plain_types) {
      for (const std::int64_t block_size : {1, 5}) {
        Array k(from, {7, 20}, 3), cache(to, {6, block_size, 20}, 2);
        k.fill(random, 8);
        k.set(1, 3, 0, NAN), k.set(2, 0, 0, HUGE_VAL), k.set(3, 1, 0, 1e-7);
        const std::vector<std::int64_t> slots{3, -1, 0, 5, 2, 1};
        Array expected = cache;
        for (std::size_t token = 0; token < slots.size(); ++token) {
          for (std::int64_t d = 0; slots[token] >= 0 && d < 20; ++d) {
            expected.set(slots[token] / block_size, slots[token] % block_size, d,
                         k.at(static_cast<std::int64_t>(token), d));
          }
        }
        Store(k, cache, slots).run();
        CHECK(cache.bytes() == expected.bytes());
      }
    }
  }
}

/// Scales as the header has them, and numbers divided by them.
struct Quantized {
  Quantized(const std::vector<float>& values, std::int32_t scale_format) {
    float largest = 1e-4F;
    for (const float x : values) {
      if (std::fabs(x) > largest) largest = std::fabs(x);
    }
    scale = std::min(largest, 3.4028234663852886e38F) / 448.0F;
    if (scale_format == MLA_INDEX_SCALE_POWER_OF_TWO) {
      int exponent = 0;
      const float fraction = std::frexp(scale, &exponent);
      scale = std::ldexp(1.0F, fraction == 0.5F ? exponent - 1 : exponent);
    }
    for (const float x : values) codes.push_back(test::float8_bits(static_cast<double>(x / scale)));
  }

  float scale = 0;
  std::vector<std::uint8_t> codes;
};

void blocks() {
  std::mt19937 random(2);
  for (const std::int32_t from : plain_types) {
    for (const std::int32_t scale_format : {MLA_INDEX_SCALE_FP32, MLA_INDEX_SCALE_POWER_OF_TWO}) {
      for (const std::int64_t block_size : {1, 3, 64}) {
        const std::int64_t dim = 21;
        Array k(from, {9, dim}, 1), cache(MLA_DTYPE_FLOAT8_E4M3FN, {20, block_size, dim + 4});
        k.fill(random, 3);
        for (std::int64_t d = 0; d < dim; ++d) {
          k.set(1, d, 0, 0), k.set(2, d, 0, 1e-5), k.set(3, d, 0, d == 2 ? 448 : 1), k.set(4, d, 0, d == 2 ? 449 : 1);
        }
        k.set(5, 4, 0, NAN), k.set(6, 4, 0, -HUGE_VAL);
        const std::vector<std::int64_t> slots{13, 0, 1, 2, 3, 19, 7, -1, 4};
        const Array before = cache;
        Array expected = cache;
        auto* bytes = static_cast<std::uint8_t*>(expected.view().data);
        for (std::size_t token = 0; token < slots.size(); ++token) {
          if (slots[token] < 0) continue;
          std::vector<float> values;
          for (std::int64_t d = 0; d < dim; ++d) {
            values.push_back(static_cast<float>(k.at(static_cast<std::int64_t>(token), d)));
          }
          const Quantized right(values, scale_format);
          std::uint8_t* block = bytes + slots[token] / block_size * block_size * (dim + 4);
          const std::int64_t offset = slots[token] % block_size;
          std::memcpy(block + offset * dim, right.codes.data(), static_cast<std::size_t>(dim));
          std::memcpy(block + block_size * dim + offset * 4, &right.scale, 4);
        }
        Store store(k, cache, slots);
        store.args.scale_format = scale_format;
        store.run();
        // The sign of a NaN is not said.
        const std::int64_t nan = slots[5] / block_size * block_size * (dim + 4) + slots[5] % block_size * dim + 4;
        auto* written = static_cast<std::uint8_t*>(cache.view().data);
        CHECK((written[nan] & 0x7F) == 0x7F);
        written[nan] = bytes[nan];
        CHECK(cache.bytes() == expected.bytes() && cache.bytes() != before.bytes());
      }
    }
  }
}

/// By the definition of the matrix, of whole numbers: exact.
void turned() {
  std::mt19937 random(3);
  for (const std::int64_t dim : {1, 4, 64, 256}) {
    Array k(MLA_DTYPE_FLOAT32, {3, dim}), cache(MLA_DTYPE_FLOAT32, {1, 3, dim});
    k.each([&](auto i, auto j, auto) { k.set(i, j, 0, static_cast<double>(random() % 9) - 4); });
    const std::vector<std::int64_t> slots{0, 1, 2};
    Store store(k, cache, slots);
    store.args.hadamard = 1;
    store.run();
    for (std::int64_t token = 0; token < 3; ++token) {
      for (std::int64_t i = 0; i < dim; ++i) {
        double sum = 0;
        for (std::int64_t j = 0; j < dim; ++j) {
          const bool is_odd = __builtin_popcountll(static_cast<unsigned long long>(i & j)) % 2 != 0;
          sum += is_odd ? -k.at(token, j) : k.at(token, j);
        }
        const double right = sum / std::sqrt(static_cast<double>(dim));
        EXPECT(cache.at(0, token, i) == right, "dimension %d of %d: %g, not %g", static_cast<int>(i),
               static_cast<int>(dim), cache.at(0, token, i), right);
      }
    }
  }
  Array k(MLA_DTYPE_FLOAT32, {3, 48}), cache(MLA_DTYPE_FLOAT32, {1, 3, 48});
  const std::vector<std::int64_t> slots{0};
  Store store(k, cache, slots);
  store.args.hadamard = 1;
  CHECK(mla_index_store(&store.args) == MLA_ERROR_INVALID_ARGUMENT);
  CHECK(std::strstr(mla_last_error_message(), "hadamard = 1: must be 0: the head dimension, 48, is no power of two"));
}

/// The last token of a slot has it, whoever writes.
void slots_that_meet() {
  std::mt19937 random(4);
  Array k(MLA_DTYPE_BFLOAT16, {2000, 16});
  k.fill(random);
  for (const std::int32_t threads : {1, 5}) {
    mla::check(mla_set_num_threads(threads));
    Array cache(MLA_DTYPE_FLOAT8_E4M3FN, {4, 8, 20}), last = cache;
    std::vector<std::int64_t> slots(2000);
    for (std::size_t i = 0; i < slots.size(); ++i) slots[i] = static_cast<std::int64_t>(i * 7 % 32);
    Store(k, cache, slots).run();
    for (std::size_t i = 0; i < slots.size() - 32; ++i) slots[i] = -1;
    Store(k, last, slots).run();
    CHECK(cache.bytes() == last.bytes());
  }
  mla::check(mla_set_num_threads(0));
}

/// A query that is turned or quantized by the call is what storing makes of it as a key.
void queries_as_keys() {
  for (const std::int32_t type : plain_types) {
    for (const bool quantizes : {false, true}) {
      for (const std::int32_t scale_format : {MLA_INDEX_SCALE_FP32, MLA_INDEX_SCALE_POWER_OF_TWO}) {
        IndexShape shape{type, MLA_DTYPE_FLOAT8_E4M3FN, 5, 32, 8, 12, MLA_INDEX_FORMAT_FP8_BLOCK};
        IndexProblem by_call(shape, {{90, 6}}, 8);
        shape.q = quantizes ? MLA_DTYPE_FLOAT8_E4M3FN : type;
        IndexProblem before(shape, {{90, 6}}, 8);
        before.cache = by_call.cache, before.block_table = by_call.block_table;
        const std::int64_t rows = 6 * 5;
        Array as_keys(type, {rows, 32});
        by_call.q.each([&](auto i, auto j, auto d) { if (i < 6) as_keys.set(i * 5 + j, d, 0, by_call.q.at(i, j, d)); });
        // Blocks of one: a scale behind each.
        Array stored(shape.q, {rows, 1, quantizes ? 36 : 32});
        const auto slots = test::numbered<std::int64_t>(rows);
        Store store(as_keys, stored, slots);
        store.args.hadamard = 1, store.args.scale_format = scale_format;
        store.run();
        before.weights = by_call.weights;
        before.q.each([&](auto i, auto j, auto d) { if (i < 6) before.q.set(i, j, d, stored.at(i * 5 + j, 0, d)); });
        for (std::int64_t i = 0; quantizes && i < rows; ++i) {
          float scale;
          std::memcpy(&scale, static_cast<char*>(stored.view().data) + i * 36 + 32, 4);
          before.weights.set(i / 5, i % 5, 0,
                             static_cast<double>(static_cast<float>(by_call.weights.at(i / 5, i % 5)) * scale));
        }
        mla_index_select_args args = by_call.args();
        args.hadamard = 1, args.quantize_q = quantizes ? 1 : 0, args.scale_format = scale_format;
        mla::check(mla_index_select(&args));
        args = before.args();
        mla::check(mla_index_select(&args));
        CHECK(by_call.indices == before.indices && by_call.scores.bytes() == before.scores.bytes());
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  return test::run(argc, argv, {{"index store: plain", plain},
                                {"index store: fp8 blocks", blocks},
                                {"index store: turned", turned},
                                {"index store: slots that meet", slots_that_meet},
                                {"index store: queries as keys", queries_as_keys}});
}
