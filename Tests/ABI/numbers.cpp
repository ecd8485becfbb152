// Numbers at the edge: what a row does not see has no part in it, what it sees shows;
// weights of 1 are 1, errors do not grow with the number of keys, small numbers count.
//
// SPDX-License-Identifier: Apache-2.0
#include "support.hpp"

namespace {

struct Row {
  std::vector<double> out;
  double lse;
};

/// A request of one head; tensors are [tokens, 1, dim].
struct Problem {
  Problem(std::int32_t type, std::int64_t tokens, std::int64_t qk_dim, std::int64_t v_dim)
      : q(type, {tokens, 1, qk_dim}),
        k(type, {tokens, 1, qk_dim}),
        v(type, {tokens, 1, v_dim}),
        out(type, {tokens, 1, v_dim}),
        lse(MLA_DTYPE_FLOAT32, {1, tokens}) {}

  void fill(double q_value, double k_value, double v_value) {
    set(q, q_value), set(k, k_value), set(v, v_value);
  }
  static void set(test::Array& array, double value) {
    array.each([&](std::int64_t i, std::int64_t j, std::int64_t d) { array.set(i, j, d, value); });
  }
  static void set(test::Array& array, std::int64_t token, double value) {
    for (std::int64_t d = 0; d < array.size(2); ++d) array.set(token, 0, d, value);
  }

  mla_status run(const char* name, std::int32_t isa, double scale = 1) {
    mla_backend_config config = MLA_BACKEND_CONFIG_INIT;
    config.num_heads = 1, config.scale = scale, config.max_isa = isa;
    config.qk_nope_head_dim = static_cast<std::int32_t>(q.size(2));
    config.v_head_dim = static_cast<std::int32_t>(v.size(2));
    mla::backend backend(name, config);
    backend.prepare_metadata(test::Offsets{0, static_cast<std::int32_t>(q.size(0))});
    backend.run_prefill_new_tokens(q.view(), k.view(), v.view(), out.view(), &lse.view());
    return MLA_OK;
  }

  Row row(std::int64_t token) const {
    Row made{{}, lse.at(0, token)};
    for (std::int64_t d = 0; d < out.size(2); ++d) made.out.push_back(out.at(token, 0, d));
    return made;
  }

  test::Array q, k, v, out, lse;
};

bool same_bits(double a, double b) {
  return (std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b));
}

bool same_bits(const Row& a, const Row& b) {
  for (std::size_t d = 0; d < a.out.size(); ++d) {
    if (!same_bits(a.out[d], b.out[d])) return false;
  }
  return same_bits(a.lse, b.lse);
}

const std::vector<std::int32_t> dtypes{MLA_DTYPE_FLOAT32, MLA_DTYPE_FLOAT16, MLA_DTYPE_BFLOAT16};

template <class Body>
void each_kernel(Body body) {
  for (std::int32_t isa : test::tables()) {
    for (std::int32_t dtype : dtypes) {
      body(isa, dtype, std::string(mla_isa_name(isa)) + "/" + test::dtype_name(dtype));
    }
  }
}

/// Rows that do not see a token keep their bits whatever it holds, at every place in
/// a tile; those that see it show it.
void hidden_tokens() {
  each_kernel([](std::int32_t isa, std::int32_t dtype, const std::string& kernel) {
    for (std::int64_t tokens : {12, 75, 203}) {
      Problem usual(dtype, tokens, 24, 40);
      std::mt19937 random(7);
      for (test::Array* array : {&usual.q, &usual.k, &usual.v}) array->fill(random);
      usual.run("CPU", isa);
      for (std::int64_t token = 0; token < tokens; token += tokens < 20 ? 1 : 7) {
        for (double poison : {static_cast<double>(NAN), HUGE_VAL, -HUGE_VAL}) {
          for (int which = 0; which < 3; ++which) {
            Problem bad = usual;
            Problem::set(which == 0 ? bad.v : which == 1 ? bad.k : bad.q, token, poison);
            bad.run("CPU", isa);
            for (std::int64_t row = 0; row < tokens; ++row) {
              const bool sees = which == 2 ? row == token : row >= token;
              if (!sees) {
                EXPECT(same_bits(bad.row(row), usual.row(row)),
                       "%s, %d tokens: %g in %c of token %d reaches row %d", kernel.c_str(),
                       static_cast<int>(tokens), poison, "vkq"[which], static_cast<int>(token),
                       static_cast<int>(row));
              } else if (which == 0) {
                for (double value : bad.row(row).out) {
                  EXPECT(!std::isfinite(value), "%s: %g in v of token %d is %g in row %d",
                         kernel.c_str(), poison, static_cast<int>(token), value,
                         static_cast<int>(row));
                }
                EXPECT(bad.row(row).lse == usual.row(row).lse, "%s: v has a part in lse",
                       kernel.c_str());
              } else if (std::isnan(poison)) {
                EXPECT(std::isnan(bad.row(row).lse) && std::isnan(bad.row(row).out[0]),
                       "%s: a NaN score of row %d does not show", kernel.c_str(),
                       static_cast<int>(row));
              }
            }
          }
        }
      }
    }
  });
}

/// A score of -inf has weight 0: infinite keys against queries of the other sign.
void scores_of_minus_infinity() {
  each_kernel([](std::int32_t isa, std::int32_t dtype, const std::string& kernel) {
    // Tiles split numbers of these, infinities among them.
    if (isa == MLA_ISA_AMX && dtype != MLA_DTYPE_BFLOAT16) return;
    for (std::int64_t token : {0, 5, 11}) {
      Problem problem(dtype, 12, 8, 8);
      problem.fill(1, 1, 1);
      Problem::set(problem.k, token, -HUGE_VAL);
      problem.run("CPU", isa);
      for (std::int64_t row = 0; row < 12; ++row) {
        const auto keys = static_cast<double>(row + (row < token ? 1 : 0));
        const Row got = problem.row(row);
        const double lse = keys == 0 ? -HUGE_VAL : 8 + std::log(keys), out = keys == 0 ? 0 : 1;
        EXPECT(got.out[0] == out && (got.lse == lse || std::fabs(got.lse - lse) < 5e-6),
               "%s: row %d has out %g and lse %g beside a score of -inf", kernel.c_str(),
               static_cast<int>(row), got.out[0], got.lse);
      }
    }
  });
}

/// One key is all there is: its value, to the bit, and its score.
void one_key() {
  each_kernel([](std::int32_t isa, std::int32_t dtype, const std::string& kernel) {
    const bool flushes = dtype == MLA_DTYPE_BFLOAT16 && isa >= MLA_ISA_AVX512_BF16;
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

/// A request of one head on a context, by the whole layer.
struct LayerProblem {
  static constexpr std::int64_t context = 300, tokens = 21, rank = 48, nope = 16, rope = 8, v_dim = 24;

  explicit LayerProblem(std::int32_t dtype)
      : weights(dtype, {nope + v_dim, rank}),
        q(dtype, {tokens, 1, nope + rope}),
        latents(dtype, {context + tokens, rank}),
        k_pe(dtype, {context + tokens, rope}),
        cache(dtype, {20, 16, rank + rope}),
        out(dtype, {tokens, 1, v_dim}),
        lse(MLA_DTYPE_FLOAT32, {1, tokens}) {
    std::mt19937 random(9);
    for (test::Array* array : {&weights, &q, &latents, &k_pe}) array->fill(random, 0.5);
  }

  void run(std::int32_t isa, std::int32_t algorithm) {
    std::vector<std::int64_t> slots;
    for (std::int64_t token = 0; token < context; ++token) slots.push_back(token);
    mla::concat_and_cache_mla(latents.view().narrow(0, 0, context),
                              k_pe.view().narrow(0, 0, context), cache.view(), slots);
    mla_layer_config config = MLA_LAYER_CONFIG_INIT;
    config.num_heads = 1, config.scale = 0.2, config.kv_lora_rank = rank, config.max_isa = isa;
    config.qk_nope_head_dim = nope, config.qk_rope_head_dim = rope, config.v_head_dim = v_dim;
    config.kv_b_proj = &weights.view(), config.algorithm = algorithm, config.backend = "CPU";
    const mla::tensor new_latents = latents.view().narrow(0, context, context + tokens);
    const mla::tensor new_k_pe = k_pe.view().narrow(0, context, context + tokens);
    const std::int32_t q_loc[] = {0, tokens}, context_lens[] = {context};
    std::vector<std::int32_t> table;
    for (std::int32_t block = 0; block < 20; ++block) table.push_back(block);
    mla_layer_forward_args args = MLA_LAYER_FORWARD_ARGS_INIT;
    args.num_requests = 1, args.query_start_loc = q_loc, args.context_lens = context_lens;
    args.q = &q.view(), args.kv_c_normed = &new_latents, args.k_pe = &new_k_pe;
    args.kv_cache = &cache.view(), args.block_table = table.data();
    args.block_table_stride = args.max_blocks = 20;
    args.out = &out.view(), args.lse = &lse.view();
    mla::layer(config).forward(args);
  }

  test::Array weights, q, latents, k_pe, cache, out, lse;
};

void hidden_latents() {
  each_kernel([](std::int32_t isa, std::int32_t dtype, const std::string& kernel) {
    for (std::int32_t algorithm : {MLA_LAYER_ALGORITHM_UP_PROJECTED, MLA_LAYER_ALGORITHM_ABSORBED}) {
      LayerProblem usual(dtype);
      usual.run(isa, algorithm);
      for (std::int64_t token = -2; token < LayerProblem::tokens; ++token) {
        for (double poison : {static_cast<double>(NAN), HUGE_VAL}) {
          LayerProblem bad(dtype);
          bad.latents.set(LayerProblem::context + token, 5, 0, poison);
          bad.run(isa, algorithm);
          for (std::int64_t row = 0; row < LayerProblem::tokens; ++row) {
            for (std::int64_t d = 0; d < LayerProblem::v_dim; ++d) {
              const double got = bad.out.at(row, 0, d), wanted = usual.out.at(row, 0, d);
              EXPECT(row < token ? same_bits(got, wanted) : std::isinf(poison) || std::isnan(got),
                     "%s, algorithm %d: %g in the latent of new token %d makes %g of %g in row %d",
                     kernel.c_str(), algorithm, poison, static_cast<int>(token), got, wanted,
                     static_cast<int>(row));
            }
            EXPECT(row >= token || bad.lse.at(0, row) == usual.lse.at(0, row),
                   "%s: a hidden latent has a part in lse", kernel.c_str());
          }
        }
      }
    }
  });
}

}  // namespace

int main(int argc, char** argv) {
  return test::run(argc, argv, {{"hidden tokens", hidden_tokens},
                                {"scores of -inf", scores_of_minus_infinity},
                                {"one key", one_key},
                                {"many keys", many_keys},
                                {"scales", scales},
                                {"hidden latents", hidden_latents}});
}
