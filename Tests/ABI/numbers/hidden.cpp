// SPDX-License-Identifier: Apache-2.0
#include "../layer_request.hpp"
#include "problem.hpp"

namespace numbers {
namespace {

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
    mla::concat_and_cache_mla(latents.view().narrow(0, 0, context),
                              k_pe.view().narrow(0, 0, context), cache.view(),
                              test::numbered<std::int64_t>(context));
    mla_layer_config config = MLA_LAYER_CONFIG_INIT;
    config.num_heads = 1, config.scale = 0.2, config.kv_lora_rank = rank, config.max_isa = isa;
    config.qk_nope_head_dim = nope, config.qk_rope_head_dim = rope, config.v_head_dim = v_dim;
    config.kv_b_proj = &weights.view(), config.algorithm = algorithm, config.backend = "CPU";
    const mla::tensor new_latents = latents.view().narrow(0, context, context + tokens);
    const mla::tensor new_k_pe = k_pe.view().narrow(0, context, context + tokens);
    test::LayerRequest request(q, new_latents, &new_k_pe, cache, context, out);
    request.args.lse = &lse.view();
    mla::layer(config).forward(request.args);
  }

  test::Array weights, q, latents, k_pe, cache, out, lse;
};

}  // namespace

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

}  // namespace numbers
