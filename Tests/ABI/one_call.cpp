// Attention in one call against float64: 3 and 4 dimensions, groups of heads, masks, shared
// caches, any layout, with NaN wherever nobody looks.
//
// SPDX-License-Identifier: Apache-2.0
#include "one_call/bits.hpp"
#include "one_call/limits.hpp"

namespace {

using test::OneCall;
using test::OneCallShape;
using test::Request;

const std::vector<std::int32_t> dtypes{MLA_DTYPE_BFLOAT16, MLA_DTYPE_FLOAT16, MLA_DTYPE_FLOAT32};

template <class T>
T pick(std::mt19937& random, std::initializer_list<T> choices) {
  return choices.begin()[random() % choices.size()];
}

std::int64_t between(std::mt19937& random, std::int64_t low, std::int64_t high) {
  return low + static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(high - low + 1));
}

std::int64_t length(std::mt19937& random) {
  return pick<std::int64_t>(random, {0, 1, 1, 2, 17, 33, 64, between(random, 1, 150)});
}

OneCallShape shape(std::mt19937& random, std::int32_t dtype) {
  OneCallShape made;
  made.dtype = dtype;
  made.kv_heads = pick<std::int64_t>(random, {1, 1, 2, 3});
  made.heads = made.kv_heads * pick<std::int64_t>(random, {1, 2, 4, 7, 16});
  made.dim = pick<std::int64_t>(random, {1, 5, 24, 40, 64, 72});
  made.v_dim = pick<std::int64_t>(random, {1, 7, 24, 32, 64, 80});
  made.causal = pick(random, {MLA_CAUSAL_NONE, MLA_CAUSAL_START, MLA_CAUSAL_END});
  return made;
}

/// Requests one after the other, with rows of nobody behind them.
OneCall by_offsets(std::mt19937& random, std::int32_t dtype) {
  std::vector<Request> requests;
  test::Offsets queries{0}, keys{0};
  const bool are_same = random() % 3 == 0;
  for (std::int64_t n = between(random, 0, 5); n > 0; --n) {
    const std::int64_t rows = length(random);
    const std::int64_t seen = are_same ? rows : pick<std::int64_t>(random, {length(random), 300});
    requests.push_back({0, queries.back(), rows, keys.back(), seen});
    queries.push_back(static_cast<std::int32_t>(queries.back() + rows));
    keys.push_back(static_cast<std::int32_t>(keys.back() + seen));
  }
  const std::int64_t spare = between(random, 0, 3);
  OneCall call(shape(random, dtype), 3, requests, 1, queries.back() + spare, keys.back() + spare,
               random);
  call.cu_seqlens_q = queries;
  if (!are_same || random() % 2 == 0) call.cu_seqlens_k = keys;
  return call;
}

/// Requests that look at parts of one cache, in any order, some at the same keys.
OneCall sharing(std::mt19937& random, std::int32_t dtype) {
  std::vector<Request> requests;
  const std::int64_t cache = between(random, 1, 400);
  test::Offsets queries{0}, begins, counts;
  for (std::int64_t n = between(random, 1, 5); n > 0; --n) {
    const std::int64_t rows = length(random), begin = between(random, 0, cache);
    const std::int64_t seen = between(random, 0, cache - begin);
    requests.push_back({0, queries.back(), rows, begin, seen});
    queries.push_back(static_cast<std::int32_t>(queries.back() + rows));
    begins.push_back(static_cast<std::int32_t>(begin));
    counts.push_back(static_cast<std::int32_t>(seen));
  }
  OneCall call(shape(random, dtype), 3, requests, 1, queries.back(), cache, random);
  call.cu_seqlens_q = queries;
  call.k_begin = begins;
  call.k_count = counts;
  return call;
}

/// All rows are one request's.
OneCall single(std::mt19937& random, std::int32_t dtype) {
  const std::int64_t rows = length(random), keys = length(random);
  return OneCall(shape(random, dtype), 3, {{0, 0, rows, 0, keys}}, 1, rows, keys, random);
}

/// A request for each element of the batch; padding, or a cache that is not full.
OneCall batch(std::mt19937& random, std::int32_t dtype) {
  std::vector<Request> requests;
  const std::int64_t size = between(random, 0, 4), rows = length(random);
  const std::int64_t keys = pick<std::int64_t>(random, {rows, length(random), 200});
  const bool begins = random() % 2 == 0, counts = random() % 2 == 0;
  test::Offsets first, count;
  for (std::int64_t b = 0; b < size; ++b) {
    const std::int64_t begin = begins ? between(random, 0, keys) : 0;
    const std::int64_t seen = counts ? between(random, 0, keys - begin) : keys - begin;
    requests.push_back({b, 0, rows, begin, seen});
    first.push_back(static_cast<std::int32_t>(begin));
    count.push_back(static_cast<std::int32_t>(seen));
  }
  OneCall call(shape(random, dtype), 4, requests, size, rows, keys, random);
  if (begins) call.k_begin = first;
  if (counts) call.k_count = count;
  return call;
}

void against_float64(OneCall (*make)(std::mt19937&, std::int32_t), unsigned seed) {
  std::mt19937 random(seed);
  for (int round = 0; round < 40; ++round) {
    OneCall call = make(random, dtypes[static_cast<std::size_t>(round) % 3]);
    const std::vector<test::ExpectedRow> expected = test::expected_rows(call);
    for (std::int32_t isa : test::tables()) {
      call.max_isa = isa;
      call.run();
      test::expect_close(call, expected,
                         "round " + std::to_string(round) + ", " + mla_isa_name(isa) + " " +
                             test::dtype_name(call.shape.dtype));
    }
  }
}

/// Lengths and dimensions of models: long contexts for few tokens, which are split, and one
/// head of keys for many.
void models() {
  const struct {
    std::int64_t heads, kv_heads, dim, v_dim, rows, keys;
  } cases[] = {{16, 1, 576, 512, 1, 3000}, {128, 1, 576, 512, 3, 700}, {32, 8, 128, 128, 1, 5000},
               {8, 2, 128, 128, 9, 9000},  {6, 6, 192, 128, 2, 9000},  {16, 2, 64, 64, 700, 900},
               {300, 1, 16, 16, 2, 40},
               // The first queries see nothing.
               {16, 1, 24, 16, 3, 2},      {64, 2, 24, 16, 5, 3}};
  unsigned seed = 5;
  for (const auto& c : cases) {
    for (std::int32_t dtype : dtypes) {
      std::mt19937 random(++seed);
      OneCallShape shape{dtype, c.heads, c.kv_heads, c.dim, c.v_dim, MLA_CAUSAL_END};
      OneCall call(shape, 3, {{0, 0, c.rows, 0, c.keys}}, 1, c.rows, c.keys, random);
      call.run();
      test::expect_close(call, test::expected_rows(call),
                         std::to_string(c.heads) + " heads, " + test::dtype_name(dtype));
    }
  }
}

/// MLA's cache: a token's value is the beginning of its key.
void value_is_a_view_of_the_key() {
  std::mt19937 random(6);
  const OneCallShape shape{MLA_DTYPE_BFLOAT16, 16, 1, 576, 512, MLA_CAUSAL_END};
  for (const std::int64_t rows : {1, 7, 90}) {
    OneCall call(shape, 3, {{0, 0, rows, 0, 300}}, 1, rows, 300, random);
    for (std::int64_t j = 0; j < 300; ++j) {
      for (std::int64_t d = 0; d < 512; ++d) call.v.set(0, j, 0, d, call.k.at(0, j, 0, d));
    }
    call.run();
    const auto out = call.out.bytes, lse = call.lse.bytes;
    call.with_args([&](mla_attention_args& args) {
      const mla::tensor view = call.k.view(3).narrow(2, 0, 512);
      args.v = &view;
      mla::attention(args);
    });
    EXPECT(call.out.bytes == out && call.lse.bytes == lse, "%lld rows: other bits",
           static_cast<long long>(rows));
  }
}

/// All of the wrapper's ways to the same call.
void cpp_overloads() {
  OneCall call = one_call::mixed(MLA_DTYPE_FLOAT32, MLA_CAUSAL_END);
  call.run();
  const auto out = call.out.bytes, lse = call.lse.bytes;
  call.with_args([&](mla_attention_args& args) {
    const mla::tensor q = call.q.view(3), k = call.k.view(3), v = call.v.view(3);
    const mla::tensor result = call.out.view(3);
    mla::tensor sums;
    static_cast<mla_tensor&>(sums) = *args.lse;
    std::fill(call.out.bytes.begin(), call.out.bytes.end(), std::uint8_t{0xFF});
    mla::attention(q, k, v, result, args.scale, MLA_CAUSAL_END, call.cu_seqlens_q,
                   call.cu_seqlens_k, &sums);
    CHECK(call.out.bytes == out && call.lse.bytes == lse);
    try {
      mla::attention(q, k, v, result, args.scale, MLA_CAUSAL_END, call.cu_seqlens_q,
                     test::Offsets{0, 5});
      test::fail("offsets of another number of requests were taken");
    } catch (const mla::error& refused) {
      CHECK(std::strstr(refused.what(), "cu_seqlens_k") != nullptr);
    }
  });
  std::mt19937 random(8);
  OneCall single({MLA_DTYPE_FLOAT32, 4, 2, 8, 8, MLA_CAUSAL_START}, 4, {{0, 0, 5, 0, 9}}, 1, 5, 9,
                 random);
  single.run();
  const auto expected = single.out.bytes;
  std::fill(single.out.bytes.begin(), single.out.bytes.end(), std::uint8_t{0xFF});
  mla::attention(single.q.view(4), single.k.view(4), single.v.view(4), single.out.view(4),
                 single.scale(), MLA_CAUSAL_START);
  CHECK(single.out.bytes == expected);
}

}  // namespace

int main(int argc, char** argv) {
  return test::run(argc, argv,
                   {{"one call: offsets", [] { against_float64(by_offsets, 1); }},
                    {"one call: shared keys", [] { against_float64(sharing, 2); }},
                    {"one call: one request", [] { against_float64(single, 3); }},
                    {"one call: batches", [] { against_float64(batch, 4); }},
                    {"one call: models", models},
                    {"one call: value in the key", value_is_a_view_of_the_key},
                    {"one call: threads and runs", one_call::threads_and_runs},
                    {"one call: workspace", one_call::workspace},
                    {"one call: alone or in a batch", one_call::alone_or_in_a_batch},
                    {"one call: fp8", one_call::quantized_output},
                    {"one call: C++", cpp_overloads},
                    {"one call: limits", one_call::limits}});
}
