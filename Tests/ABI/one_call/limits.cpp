// Calls at the header's bounds: how much they need is told, or they are refused with a message.
// Their tensors are nowhere.
//
// SPDX-License-Identifier: Apache-2.0
#include "limits.hpp"

#include "problem.hpp"

namespace one_call {
namespace {

struct Size {
  std::int64_t heads, kv_heads, dim, v_dim;
};

constexpr Size sizes[] = {{1, 1, 1, 1},           {16, 1, 576, 512},  {32, 8, 128, 128},
                          {65536, 1, 1, 1},       {65536, 65536, 1, 1}, {2892, 4, 3, 2},
                          {65536, 16, 65536, 65536}, {1, 1, 65536, 65536}};
constexpr std::int64_t longest = INT32_MAX, most_elements = std::int64_t{1} << 44,
                       most_pairs = 1 << 24, most_requests = 1 << 20;

enum class Place { q = 48, out = 50, keys = 55 };

/// A dense tensor that begins at an address of its own, before those that may be larger.
mla::tensor nowhere(Place place, std::initializer_list<std::int64_t> shape) {
  return mla::tensor(reinterpret_cast<void*>(std::uintptr_t{1} << static_cast<int>(place)),
                     MLA_DTYPE_BFLOAT16, shape);
}

struct Tensors {
  mla::tensor q, k, v, out;

  void hand_to(mla_attention_args& args) const {
    args.q = &q, args.k = &k, args.v = &v, args.out = &out;
  }
};

Tensors of_rows(const Size& s, std::int64_t rows, std::int64_t keys) {
  return {nowhere(Place::q, {rows, s.heads, s.dim}), nowhere(Place::keys, {keys, s.kv_heads, s.dim}),
          nowhere(Place::keys, {keys, s.kv_heads, s.v_dim}), nowhere(Place::out, {rows, s.heads, s.v_dim})};
}

Tensors of_batch(const Size& s, std::int64_t batch, std::int64_t rows, std::int64_t keys) {
  return {nowhere(Place::q, {batch, s.heads, rows, s.dim}), nowhere(Place::keys, {batch, s.kv_heads, keys, s.dim}),
          nowhere(Place::keys, {batch, s.kv_heads, keys, s.v_dim}),
          nowhere(Place::out, {batch, s.heads, rows, s.v_dim})};
}

/// Whether there is an answer; else there is a message.
bool asks(const Tensors& tensors, mla_attention_args args) {
  tensors.hand_to(args);
  std::int64_t bytes = -1;
  const mla_status status = mla_attention_workspace_size(&args, &bytes);
  EXPECT(status != MLA_OK || bytes >= 0, "%lld bytes", static_cast<long long>(bytes));
  EXPECT(status == MLA_OK || *mla_last_error_message() != '\0', "status %d without a message",
         status);
  return status == MLA_OK;
}

/// Requests of equal lengths, or all of them but one of one row.
test::Offsets offsets(std::int64_t requests, std::int64_t rows, bool is_even) {
  test::Offsets made{0};
  for (std::int64_t i = 0; i < requests; ++i) {
    const std::int64_t count = is_even ? rows / requests : i > 0 ? 1 : rows - requests + 1;
    made.push_back(static_cast<std::int32_t>(made.back() + count));
  }
  return made;
}

void ask(const Size& s, std::int32_t causal) {
  const std::int64_t rows = std::min(longest, most_elements / (s.heads * s.v_dim));
  mla_attention_args args = MLA_ATTENTION_ARGS_INIT;
  args.causal = causal;
  for (const std::int64_t keys : {std::int64_t{0}, std::int64_t{1}, longest}) {
    for (const std::int64_t count : {std::int64_t{1}, rows}) {
      CHECK(asks(of_rows(s, count, keys), args));
      CHECK(asks(of_batch(s, 1, count, keys), args));
    }
  }
  // As many requests as there may be take their time.
  const std::int64_t most = std::min(most_requests, most_pairs / s.heads);
  CHECK(causal != MLA_CAUSAL_END || asks(of_batch(s, most, 1, 1000), args));
  for (const std::int64_t requests : {std::int64_t{250}, std::int64_t{5800}}) {
    if (requests * s.heads > most_pairs || requests > rows) continue;
    for (const bool is_even : {true, false}) {
      const test::Offsets queries = offsets(requests, rows, is_even);
      const test::Offsets begins(static_cast<std::size_t>(requests), INT32_MAX / 2);
      args.num_requests = static_cast<std::int32_t>(requests);
      args.cu_seqlens_q = queries.data();
      args.k_begin = begins.data();
      CHECK(asks(of_rows(s, rows, longest), args));
    }
  }
}

/// What is beyond is refused by name.
void beyond() {
  mla_attention_args args = MLA_ATTENTION_ARGS_INIT;
  const auto refuses = [&](const Tensors& tensors, const char* name) {
    CHECK(!asks(tensors, args));
    EXPECT(std::strncmp(mla_last_error_message(), name, std::strlen(name)) == 0, "%s",
           mla_last_error_message());
  };
  refuses(of_batch({1, 1, 8, 8}, most_requests + 1, 1, 1), "q.shape[0] = 1048577: must be at most");
  refuses(of_batch({64, 1, 8, 8}, most_pairs / 64 + 1, 1, 1), "q.shape[0] = 262145: must be at most");
  refuses(of_batch({16, 1, 8, 65536}, 3, 1 << 24, 1), "q.shape[2] = 50331648: must be at most");
  refuses(of_rows({65536, 1, 1, 65536}, 4097, 1), "q.shape[0] = 4097: must be at most");
  refuses(of_rows({65537, 1, 1, 1}, 1, 1), "q.shape[1] = 65537: must be 1 to 65536");
  refuses(of_rows({1, 1, 65537, 1}, 1, 1), "q.shape[2] = 65537: must be 1 to 65536");
  const test::Offsets ones = test::numbered<std::int32_t>(most_pairs / 64 + 2);
  args.num_requests = most_pairs / 64 + 1;
  args.cu_seqlens_q = ones.data();
  refuses(of_rows({64, 1, 1, 1}, args.num_requests, args.num_requests), "num_requests = 262145");
}

}  // namespace

void limits() {
  for (std::int32_t threads : {1, 1024}) {
    mla::check(mla_set_num_threads(threads));
    for (const Size& size : sizes) {
      for (std::int32_t causal : {MLA_CAUSAL_NONE, MLA_CAUSAL_START, MLA_CAUSAL_END}) {
        ask(size, causal);
      }
    }
  }
  mla::check(mla_set_num_threads(0));
  beyond();
}

}  // namespace one_call
