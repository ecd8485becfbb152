// The same bits whatever the number of threads, the other requests, the workspace.
//
// SPDX-License-Identifier: Apache-2.0
#include "bits.hpp"

namespace one_call {

using test::OneCall;
using test::Request;

/// Requests of both forms, with masks, in one batch.
OneCall mixed(std::int32_t dtype, std::int32_t causal) {
  std::mt19937 random(7);
  std::vector<Request> requests;
  test::Offsets queries{0}, keys{0};
  for (const auto& [rows, seen] : std::vector<std::pair<std::int32_t, std::int32_t>>{
           {1, 1500}, {70, 70}, {0, 5}, {3, 40}, {5, 2}, {130, 700}, {2, 0}, {1, 9000}}) {
    requests.push_back({0, queries.back(), rows, keys.back(), seen});
    queries.push_back(queries.back() + rows);
    keys.push_back(keys.back() + seen);
  }
  OneCall call({dtype, 8, 2, 40, 24, causal}, 3, requests, 1, queries.back(), keys.back(), random);
  call.cu_seqlens_q = queries;
  call.cu_seqlens_k = keys;
  return call;
}

namespace {

template <class Body>
void each_mixed(Body body) {
  for (std::int32_t dtype : {MLA_DTYPE_BFLOAT16, MLA_DTYPE_FLOAT16, MLA_DTYPE_FLOAT32}) {
    for (std::int32_t causal : {MLA_CAUSAL_NONE, MLA_CAUSAL_START, MLA_CAUSAL_END}) {
      for (std::int32_t isa : test::tables()) {
        OneCall call = mixed(dtype, causal);
        call.max_isa = isa;
        body(call, std::string(mla_isa_name(isa)) + " " + test::dtype_name(dtype) + ", mask " +
                       std::to_string(causal));
      }
    }
  }
}

}  // namespace

void threads_and_runs() {
  each_mixed([](OneCall& call, const std::string& what) {
    mla::check(mla_set_num_threads(1));
    call.run();
    const auto out = call.out.bytes, lse = call.lse.bytes;
    for (std::int32_t threads : {1, 2, 5, 0}) {
      mla::check(mla_set_num_threads(threads));
      call.run();
      EXPECT(call.out.bytes == out && call.lse.bytes == lse, "%s: other bits on %d threads",
             what.c_str(), threads);
    }
  });
}

/// Exactly as much as is asked for; less is refused, and nothing is written.
void workspace() {
  each_mixed([](OneCall& call, const std::string& what) {
    call.run();
    const auto out = call.out.bytes, lse = call.lse.bytes;
    std::fill(call.out.bytes.begin(), call.out.bytes.end(), std::uint8_t{0xFF});
    const auto poisoned = call.out.bytes;
    call.with_args([&](mla_attention_args& args) {
      const std::int64_t bytes = mla::attention_workspace_size(args);
      std::vector<std::uint8_t> memory(static_cast<std::size_t>(bytes) + 65, 0xAB);
      args.workspace = memory.data() + 1;
      args.workspace_size = bytes - 1;
      CHECK(mla_attention(&args) == MLA_ERROR_INVALID_ARGUMENT);
      CHECK(std::strstr(mla_last_error_message(), "mla_attention_workspace_size") != nullptr);
      CHECK(call.out.bytes == poisoned);
      args.workspace_size = bytes;
      mla::attention(args);
      CHECK(std::all_of(memory.end() - 64, memory.end(), [](auto byte) { return byte == 0xAB; }));
    });
    EXPECT(call.out.bytes == out && call.lse.bytes == lse, "%s: other bits", what.c_str());
  });
}

/// Each request as a batch of its own, of 3 dimensions and of 4.
void alone_or_in_a_batch() {
  each_mixed([](OneCall& whole, const std::string& what) {
    whole.run();
    for (const Request& r : whole.requests) {
      for (const int dimensions : {3, 4}) {
        std::mt19937 random(static_cast<unsigned>(r.query + dimensions));
        OneCall alone(whole.shape, dimensions, {{0, 0, r.queries, 0, r.keys}}, 1, r.queries, r.keys,
                      random);
        alone.max_isa = whole.max_isa;
        const auto copy = [](const test::Rows& from, std::int64_t first, test::Rows& to) {
          for (std::int64_t t = 0; t < to.size(1); ++t) {
            for (std::int64_t h = 0; h < to.size(2); ++h) {
              for (std::int64_t d = 0; d < to.size(3); ++d) {
                to.set(0, t, h, d, from.at(0, first + t, h, d));
              }
            }
          }
        };
        copy(whole.q, r.query, alone.q);
        copy(whole.k, r.key, alone.k);
        copy(whole.v, r.key, alone.v);
        alone.run();
        for (std::int64_t i = 0; i < r.queries; ++i) {
          for (std::int64_t h = 0; h < whole.shape.heads; ++h) {
            bool is_same = alone.lse.at(0, h, i, 0) == whole.lse.at(0, h, r.query + i, 0);
            for (std::int64_t d = 0; d < whole.shape.v_dim; ++d) {
              is_same = is_same && alone.out.at(0, i, h, d) == whole.out.at(0, r.query + i, h, d);
            }
            EXPECT(is_same, "%s: %lld queries on %lld keys alone have other bits", what.c_str(),
                   static_cast<long long>(r.queries), static_cast<long long>(r.keys));
          }
        }
      }
    }
  });
}

void quantized_output() {
  OneCall call = mixed(MLA_DTYPE_BFLOAT16, MLA_CAUSAL_END);
  const auto run = [&](std::int32_t dtype, const float* scale) {
    test::Rows out(dtype, {1, call.out.size(1), call.out.size(2), call.out.size(3)}, false, 0);
    call.with_args([&](mla_attention_args& args) {
      const mla::tensor view = out.view(3);
      args.out = &view;
      args.output_scale = scale;
      mla::attention(args);
    });
    return out;
  };
  const float scale = 0.03F;
  const test::Rows exact = run(MLA_DTYPE_FLOAT32, nullptr);
  const test::Rows quantized = run(MLA_DTYPE_FLOAT8_E4M3FN, &scale);
  for (std::int64_t t = 0; t < exact.size(1); ++t) {
    for (std::int64_t h = 0; h < exact.size(2); ++h) {
      for (std::int64_t d = 0; d < exact.size(3); ++d) {
        const float value = static_cast<float>(exact.at(0, t, h, d)) * (1 / scale);
        CHECK(quantized.at(0, t, h, d) ==
              test::float8_value(test::float8_bits(static_cast<double>(value))));
      }
    }
  }
}

}  // namespace one_call
