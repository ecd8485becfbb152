// Numbers at the edge: what a row does not see has no part in it, what it sees shows;
// weights of 1 are 1, errors do not grow with the number of keys, small numbers count.
//
// SPDX-License-Identifier: Apache-2.0
#include "numbers/problem.hpp"

namespace {

using namespace numbers;

/// One key is all there is: its value, to the bit, and its score.
void one_key() {
  each_kernel([](std::int32_t isa, std::int32_t dtype, const std::string& kernel) {
    const bool is_bf16_table =
        isa == MLA_ISA_AVX512_BF16 || isa == MLA_ISA_AMX || isa == MLA_ISA_NEON_BF16;
    const bool flushes = dtype == MLA_DTYPE_BFLOAT16 && is_bf16_table;
    for (double value : {1.0, -3.0, 1e-5, 6e-8, 1.3e-38, 1.17549435e-38, 1e-39, 1e-44}) {
      for (double q_value : {0.0, 0.37, -1.25}) {
        Problem problem(dtype, 1, 8, 8);
        problem.fill(q_value, 1, value);
        problem.run("CPU", isa);
        // As the dtype has it.
        const double v = problem.v.at(0, 0, 0), q = problem.q.at(0, 0, 0);
        const double small = std::fabs(v);
        if (isa == MLA_ISA_AMX && small < 0x1p-110) continue;
        const double wanted = flushes && small < 0x1p-126 ? 0 : v;
        const Row got = problem.row(0);
        EXPECT(isa == MLA_ISA_AMX && q != 0 ? std::fabs(got.out[0] - wanted) <= 1e-5 * small
                                            : got.out[0] == wanted,
               "%s: v %g is %g, not %g", kernel.c_str(), v, got.out[0], wanted);
        EXPECT(std::fabs(got.lse - 8 * q) <= (isa == MLA_ISA_AMX ? 4e-6 : 2e-6),
               "%s: lse of a score of %g is %g", kernel.c_str(), 8 * q, got.lse);
      }
    }
  });
}

/// Of one query on many keys.
double chunk_lse(std::int32_t isa, std::int32_t dtype, const test::Array& k) {
  const std::int64_t keys = k.size(0);
  test::Array q(dtype, {1, 1, 1}), v(dtype, {keys, 1, 1}), out(dtype, {1, 1, 1});
  test::Array lse(MLA_DTYPE_FLOAT32, {1, 1});
  q.set(0, 0, 0, 1), Problem::set(v, 1);
  mla_backend_config config = MLA_BACKEND_CONFIG_INIT;
  config.num_heads = config.qk_nope_head_dim = config.v_head_dim = 1;
  config.scale = 1, config.max_isa = isa;
  mla::backend backend("FLASH_ATTN", config);
  const test::Offsets q_loc{0, 1}, kv_loc{0, static_cast<std::int32_t>(keys)};
  mla_context_chunk chunk = MLA_CONTEXT_CHUNK_INIT;
  chunk.num_requests = 1, chunk.query_start_loc = q_loc.data(), chunk.cu_seq_lens = kv_loc.data();
  backend.prepare_metadata(q_loc);
  backend.run_prefill_context_chunk(chunk, q.view(), k.view(), v.view(), out.view(), lse.view());
  return lse.at(0, 0);
}

/// However many keys there are: next to one that outweighs them, of slowly rising
/// scores, and of scores that are all the same.
void many_keys() {
  each_kernel([](std::int32_t isa, std::int32_t dtype, const std::string& kernel) {
    const double polynomial = isa == MLA_ISA_AMX && dtype == MLA_DTYPE_BFLOAT16 ? 4e-6 : 3e-7;
    // Within a block of keys fp32 sums of what is next to 1.
    const double block = (isa == MLA_ISA_AMX ? 256 : 64) * 0x1p-25;
    for (std::int64_t keys : {1, 64, 1024, 8192, 100000}) {
      const auto lse_of = [&](auto score) {
        test::Array k(dtype, {keys, 1, 1});
        double sum = 0;
        for (std::int64_t i = 0; i < keys; ++i) {
          k.set(i, 0, 0, score(i));
          sum += std::exp(k.at(i, 0, 0));
        }
        return std::pair<double, double>(chunk_lse(isa, dtype, k), std::log(sum));
      };
      const auto expect = [&](const char* what, std::pair<double, double> lse, double bound) {
        EXPECT(std::fabs(lse.first - lse.second) <= bound, "%s, %d keys, %s: lse is off by %.2g",
               kernel.c_str(), static_cast<int>(keys), what, lse.first - lse.second);
      };
      const auto spike = [](std::int64_t i) { return i == 0 ? 0.0 : -60.0; };
      expect("one outweighs all others", lse_of(spike), 0x1p-23);
      for (double rest : {-17.5, -22.0, -25.0}) {
        const auto sink = [=](std::int64_t i) { return i == 0 ? 0.0 : rest; };
        expect("one outweighs each other", lse_of(sink), polynomial + block);
      }
      const auto rising = [](std::int64_t i) { return static_cast<double>(i) / 8192; };
      expect("rising scores", lse_of(rising), polynomial + 4e-6);
      expect("equal scores", lse_of([](std::int64_t) { return 0.0; }), 2e-6);
    }
  });
}

/// Keys far above all others count alone, before them or behind, in the next block or in
/// another range of a split request.
void scores_far_apart() {
  each_kernel([](std::int32_t isa, std::int32_t dtype, const std::string& kernel) {
    if (dtype == MLA_DTYPE_FLOAT16) return;
    const double bound = isa == MLA_ISA_AMX ? 4e-5 : 4e-6;
    for (std::int64_t keys : {1024, 16384}) {
      for (double low : {-0x1p17, -0x1p29, -0x1p34, -0x1p66, -0x1p126}) {
        // To tiles larger ones may be infinite.
        if (isa == MLA_ISA_AMX && low <= -0x1p30) continue;
        for (double high : {0.0, 96.0, 0x1p28, 0x1p34, 0x1p67, 0x1p126}) {
          if (isa == MLA_ISA_AMX && high >= 0x1p30) continue;
          const double expected = high + std::log(static_cast<double>(keys / 2));
          for (bool rises : {true, false}) {
            test::Array k(dtype, {keys, 1, 1});
            for (std::int64_t i = 0; i < keys; ++i) {
              k.set(i, 0, 0, (i < keys / 2) == rises ? low : high);
            }
            const double lse = chunk_lse(isa, dtype, k);
            EXPECT(std::fabs(lse - expected) <= bound + 4e-7 * high,
                   "%s, %d keys of %g and %g, %s: lse is %g, not %g", kernel.c_str(),
                   static_cast<int>(keys), low, high, rises ? "rising" : "falling", lse, expected);
          }
        }
      }
    }
  });
}

/// Extreme scales are refused, or do no harm where the scaled scores are ordinary.
void scales() {
  struct Edge {
    double q, k, v, scale;
  };
  for (std::int32_t isa : test::tables()) {
    for (const Edge& edge : std::vector<Edge>{{1, 1, 1, 0},
                                              {1e18, 1e18, 1, 0},
                                              {1, 1, 1, -1},
                                              {1e10, 1e10, 1, 1e-20},
                                              {1e18, 1e18, 1, -1e-37},
                                              {1e-18, 1e-18, 1, 1e36},
                                              {0, 1, 1, 0x1p127},
                                              {1e-30, 1, 1, 1e30},
                                              {1, 1, 1e-33, 1},
                                              {1, 1, 1e37, 1}}) {
      // Tiles lose bits of products as small as these.
      if (isa == MLA_ISA_AMX && edge.q * edge.k < 1e-32 && edge.q > 0) continue;
      Problem problem(MLA_DTYPE_FLOAT32, 12, 8, 8);
      problem.fill(edge.q, edge.k, edge.v);
      problem.run("CPU", isa, edge.scale);
      for (std::int64_t row = 0; row < 12; ++row) {
        const Row got = problem.row(row);
        const double score = edge.q * edge.k * 8 * edge.scale;
        const double lse = score + std::log(static_cast<double>(row + 1));
        EXPECT(std::fabs(got.lse - lse) <= 1e-5 * std::max(1.0, std::fabs(score)) &&
                   std::fabs(got.out[0] - edge.v) <= 1e-5 * edge.v,
               "%s, q %g, k %g, scale %g: row %d has out %g and lse %g, not %g and %g",
               mla_isa_name(isa), edge.q, edge.k, edge.scale, static_cast<int>(row), got.out[0],
               got.lse, edge.v, lse);
      }
    }
    for (double scale : {3e38, 0x1.01p127, 1e-39, -0x1.fp-127, -1e300, 1e-300}) {
      const mla_status status = [&] {
        try {
          return Problem(MLA_DTYPE_FLOAT32, 1, 8, 8).run("CPU", isa, scale);
        } catch (const mla::error& error) {
          return error.status();
        }
      }();
      EXPECT(status == MLA_ERROR_INVALID_ARGUMENT, "a scale of %g is taken", scale);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  return test::run(argc, argv, {{"hidden tokens", hidden_tokens},
                                {"scores of -inf", scores_of_minus_infinity},
                                {"one key", one_key},
                                {"many keys", many_keys},
                                {"scores far apart", scores_far_apart},
                                {"scales", scales},
                                {"hidden latents", hidden_latents}});
}
