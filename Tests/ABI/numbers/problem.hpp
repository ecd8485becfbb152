// One request whose numbers are chosen, on every kernel.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "../support.hpp"

namespace numbers {

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

inline bool same_bits(double a, double b) {
  return (std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b));
}

inline bool same_bits(const Row& a, const Row& b) {
  for (std::size_t d = 0; d < a.out.size(); ++d) {
    if (!same_bits(a.out[d], b.out[d])) return false;
  }
  return same_bits(a.lse, b.lse);
}

template <class Body>
void each_kernel(Body body) {
  for (std::int32_t isa : test::tables()) {
    for (std::int32_t dtype : {MLA_DTYPE_FLOAT32, MLA_DTYPE_FLOAT16, MLA_DTYPE_BFLOAT16}) {
      body(isa, dtype, std::string(mla_isa_name(isa)) + "/" + test::dtype_name(dtype));
    }
  }
}

/// What rows do not see has no part in them: tokens of a run, latents of a layer, keys
/// whose score is -inf.
void hidden_tokens();
void hidden_latents();
void scores_of_minus_infinity();

}  // namespace numbers
