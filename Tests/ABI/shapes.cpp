// Every backend and dtype against float64: the models' dimensions and odd ones,
// empty requests, strided views with NaN between their rows.
//
// SPDX-License-Identifier: Apache-2.0
#include "support.hpp"

namespace {

const std::vector<test::Model> models{{3, 128, 64, 128, 512}, {2, 192, 64, 256, 512},
                                      {2, 256, 0, 256, 512},  {3, 64, 64, 128, 256},
                                      {5, 64, 32, 64, 256},   {1, 5, 3, 7, 16}};

const std::vector<std::int32_t> dtypes{MLA_DTYPE_BFLOAT16, MLA_DTYPE_FLOAT16, MLA_DTYPE_FLOAT32};

/// Two runs of one batch shape, with the results they must have.
struct Expected {
  Expected(const test::Model& model, std::int32_t dtype, std::int32_t least)
      : fresh(test::Attention::new_tokens(model, dtype, {40, least, 1, 77}, 3, 5)),
        chunk(test::Attention::context(model, dtype, {9, least, 3, 5}, {70, 11, least, 130}, 4, 9)),
        fresh_reference(test::reference_of(fresh)),
        chunk_reference(test::reference_of(chunk)) {}

  test::Attention fresh, chunk;
  test::Reference fresh_reference, chunk_reference;
};

void dimensions(const test::Model& model) {
  for (std::int32_t dtype : dtypes) {
    Expected with_empty(model, dtype, 0), without_empty(model, dtype, 1);
    test::each_backend(model, [&](mla::backend& backend, const std::string& what) {
      Expected& expected = test::refuses_empty_requests(what) ? without_empty : with_empty;
      const std::string name = what + " " + test::dtype_name(dtype);
      expected.fresh.run(backend);
      test::expect_close(expected.fresh, expected.fresh_reference, name + " new tokens");
      expected.chunk.run(backend);
      test::expect_close(expected.chunk, expected.chunk_reference, name + " context");
    });
  }
}

/// What lies between the rows of a strided output must not change.
void gaps_untouched() {
  const std::int64_t padding = 16;
  for (std::int32_t dtype : dtypes) {
    auto step = test::Attention::new_tokens({2, 64, 32, 64, 256}, dtype, {37}, 5, padding);
    test::each_backend(step.model, [&](mla::backend& backend, const std::string& what) {
      step.run(backend);
      EXPECT(step.out.gaps_are_intact(), "%s: wrote between the rows of out", what.c_str());
      EXPECT(step.lse.gaps_are_intact(), "%s: wrote between the rows of lse", what.c_str());
    });
  }
}

/// vLLM's kv_nope: k_nope and v are views into the same rows.
void value_is_a_view_of_kv() {
  const test::Model model{3, 128, 64, 128, 512};
  auto step = test::Attention::new_tokens(model, MLA_DTYPE_BFLOAT16, {50, 21}, 6);
  test::Array wide(MLA_DTYPE_BFLOAT16, {step.v.size(0), model.heads, 256});
  step.v.each([&](std::int64_t i, std::int64_t j, std::int64_t k) {
    wide.set(i, j, 128 + k, step.v.at(i, j, k));
  });
  const mla::tensor view = wide.view().narrow(2, 128, 256);
  test::each_backend(model, [&](mla::backend& backend, const std::string& what) {
    step.run(backend);
    const test::Attention expected = step;
    backend.run_prefill_new_tokens(step.q.view(), step.k.view(), view, step.out.view(),
                                   &step.lse.view());
    EXPECT(step.out.bytes() == expected.out.bytes(), "%s: other bits", what.c_str());
  });
}

void lse_may_be_null() {
  auto step = test::Attention::new_tokens({}, MLA_DTYPE_FLOAT32, {50, 21}, 6);
  test::each_backend(step.model, [&](mla::backend& backend, const std::string& what) {
    step.run(backend);
    const test::Attention expected = step;
    backend.run_prefill_new_tokens(step.q.view(), step.k.view(), step.v.view(), step.out.view());
    EXPECT(step.out.bytes() == expected.out.bytes(), "%s: other bits", what.c_str());
  });
}

void empty_batches() {
  for (const std::vector<std::int32_t>& lengths : {std::vector<std::int32_t>{}, {0}, {0, 0, 0}}) {
    auto fresh = test::Attention::new_tokens({}, MLA_DTYPE_BFLOAT16, lengths, 1);
    auto chunk = test::Attention::context({}, MLA_DTYPE_BFLOAT16, lengths, lengths, 1);
    test::each_backend(fresh.model, [&](mla::backend& backend, const std::string& what) {
      if (test::refuses_empty_requests(what)) return;
      fresh.run(backend);
      chunk.run(backend);
    });
  }
}

/// TRTLLM_RAGGED's rule, as vLLM has it.
void mixed_requests_are_refused() {
  mla::backend backend("TRTLLM_RAGGED", test::Model{}.config());
  try {
    backend.prepare_metadata(test::Offsets{0, 4, 4, 7});
  } catch (const mla::error& refused) {
    CHECK(refused.status() == MLA_ERROR_INVALID_ARGUMENT);
    CHECK(std::strstr(refused.what(), "mixed active and empty query rows") != nullptr);
    return;
  }
  test::fail("a batch of mixed requests was accepted");
}

/// As in vLLM, padding that no request has is answered where no request has anything.
void rows_of_padding_alone() {
  for (std::int32_t dtype : {MLA_DTYPE_BFLOAT16, MLA_DTYPE_FLOAT32}) {
    const test::Model model;
    const auto padded = test::Attention::new_tokens(model, dtype, {70}, 1, 3);
    test::each_backend(model, [&](mla::backend& backend, const std::string& what) {
      test::Attention step = padded;
      backend.prepare_metadata(test::Offsets{0, 0, 0});
      step.run_prepared(backend);
      const bool answers = test::refuses_empty_requests(what);
      if (!answers) {
        EXPECT(step.out.bytes() == padded.out.bytes() && step.lse.bytes() == padded.lse.bytes(),
               "%s: wrote to rows that are not the batch's", what.c_str());
        return;
      }
      step.out.each([&](std::int64_t i, std::int64_t j, std::int64_t k) {
        EXPECT(step.out.at(i, j, k) == 0, "%s: out is %g", what.c_str(), step.out.at(i, j, k));
      });
      step.lse.each([&](std::int64_t i, std::int64_t j, std::int64_t) {
        EXPECT(step.lse.at(i, j) == -INFINITY, "%s: lse is %g", what.c_str(), step.lse.at(i, j));
      });
      EXPECT(step.out.gaps_are_intact() && step.lse.gaps_are_intact(), "%s: wrote between rows",
             what.c_str());
    });
  }
}

void merge_empty_sides() {
  const std::int64_t tokens = 5, heads = 2, dim = 33;
  for (std::int32_t dtype : dtypes) {
    std::mt19937 random(1);
    test::Array prefix(dtype, {tokens, heads, dim}), suffix(dtype, {tokens, heads, dim}, 7),
        out(dtype, {tokens, heads, dim}, 3);
    test::Array prefix_lse(MLA_DTYPE_FLOAT32, {heads, tokens}),
        suffix_lse(MLA_DTYPE_FLOAT32, {heads, tokens}), lse(MLA_DTYPE_FLOAT32, {heads, tokens});
    prefix.fill(random);
    suffix.fill(random);
    prefix_lse.fill(random);
    suffix_lse.fill(random);
    // Token 1: no prefix; 2: no suffix; 3: neither, one of them as +inf.
    for (std::int64_t head = 0; head < heads; ++head) {
      prefix_lse.set(head, 1, 0, -INFINITY);
      suffix_lse.set(head, 2, 0, -INFINITY);
      prefix_lse.set(head, 3, 0, INFINITY);
      suffix_lse.set(head, 3, 0, -INFINITY);
    }
    mla::merge_attn_states(out.view(), &lse.view(), prefix.view(), prefix_lse.view(),
                           suffix.view(), suffix_lse.view());
    test::RelativeError error;
    out.each([&](std::int64_t i, std::int64_t j, std::int64_t k) {
      const double p = prefix_lse.at(j, i) == INFINITY ? -INFINITY : prefix_lse.at(j, i);
      const double s = suffix_lse.at(j, i), sum = std::exp(p) + std::exp(s);
      const double expected =
          sum == 0 ? 0
                   : (std::exp(p) * prefix.at(i, j, k) + std::exp(s) * suffix.at(i, j, k)) / sum;
      error.add(out.at(i, j, k), expected);
      const double merged = lse.at(j, i);
      if (sum == 0) {
        EXPECT(merged == -INFINITY && out.at(i, j, k) == 0, "two empty sides give %g", merged);
      } else {
        EXPECT(std::fabs(merged - std::log(sum)) <= 1e-5, "lse is %g", merged);
      }
    });
    EXPECT(error.value() <= test::Bounds::of(dtype).out, "out is off by %.2e", error.value());
  }
}

/// The distance of neighbours in e4m3 at a value.
double float8_step(double value) {
  return std::ldexp(1, std::max(std::ilogb(value), -6) - 3);
}

/// What is merged is rounded once, after it has been divided by the scale.
void merge_into_fp8() {
  const std::int64_t tokens = 70, heads = 2, dim = 33;
  for (std::int32_t dtype : dtypes) {
    std::mt19937 random(2);
    test::Array prefix(dtype, {tokens, heads, dim}), suffix(dtype, {tokens, heads, dim}, 7),
        out(MLA_DTYPE_FLOAT8_E4M3FN, {tokens, heads, dim}, 3);
    test::Array prefix_lse(MLA_DTYPE_FLOAT32, {heads, tokens}),
        suffix_lse(MLA_DTYPE_FLOAT32, {heads, tokens});
    for (test::Array* input : {&prefix, &suffix, &prefix_lse, &suffix_lse}) input->fill(random);
    const float scale = 0.03F;
    mla_merge_args args = MLA_MERGE_ARGS_INIT;
    args.output = &out.view();
    args.prefix_output = &prefix.view();
    args.prefix_lse = &prefix_lse.view();
    args.suffix_output = &suffix.view();
    args.suffix_lse = &suffix_lse.view();
    args.prefill_tokens_with_context = 40;
    args.output_scale = &scale;
    mla::merge_attn_states(args);
    out.each([&](std::int64_t i, std::int64_t j, std::int64_t k) {
      const double p = i < 40 ? std::exp(prefix_lse.at(j, i)) : 0, s = std::exp(suffix_lse.at(j, i));
      const double wanted =
          (p * prefix.at(i, j, k) + s * suffix.at(i, j, k)) / (p + s) / static_cast<double>(scale);
      EXPECT(std::fabs(out.at(i, j, k) - wanted) <= 0.501 * float8_step(wanted),
             "%g instead of %g", out.at(i, j, k), wanted);
    });
    EXPECT(out.gaps_are_intact(), "dtype %d", dtype);
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<test::Case> cases{
      {"shapes gaps untouched", gaps_untouched},
      {"shapes v is a view of kv_nope", value_is_a_view_of_kv},
      {"shapes lse may be NULL", lse_may_be_null},
      {"shapes empty batches", empty_batches},
      {"shapes TRTLLM_RAGGED refuses mixed requests", mixed_requests_are_refused},
      {"shapes TRTLLM_RAGGED answers rows of padding alone", rows_of_padding_alone},
      {"shapes merge with empty sides", merge_empty_sides},
      {"shapes merge into fp8", merge_into_fp8},
  };
  for (const test::Model& model : models) {
    cases.push_back({"shapes " + std::to_string(model.nope) + "/" + std::to_string(model.rope) +
                         "/" + std::to_string(model.v),
                     [=] { dimensions(model); }});
  }
  return test::run(argc, argv, cases);
}
