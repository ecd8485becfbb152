// Merging attention states on a device, against float64.
//
// SPDX-License-Identifier: Apache-2.0
#include "device_attention.hpp"

namespace {

using test::Array;
using test::DeviceArray;

/// What a merge is of.
struct Problem {
  std::int32_t dtype;
  std::int64_t tokens, heads, dim, with_context;
  std::int64_t padding = 0;
  std::size_t shift = 0;
  /// Above 0: the output is fp8.
  float scale = 0;
  /// Of the output; MLA_DTYPE_NONE: the inputs'.
  std::int32_t other_dtype = MLA_DTYPE_NONE;

  std::int32_t out_dtype() const {
    return scale > 0 ? MLA_DTYPE_FLOAT8_E4M3FN : other_dtype == MLA_DTYPE_NONE ? dtype : other_dtype;
  }
};

struct State {
  State(const Problem& p, std::mt19937& random)
      : out(p.dtype, {p.tokens, p.heads, p.dim}, p.padding),
        lse(MLA_DTYPE_FLOAT32, {p.heads, p.tokens}, p.padding) {
    out.fill(random);
    lse.fill(random, 3);
  }
  Array out, lse;
};

/// The rows without keys: one side has none, or neither has, said by either infinity.
void empty_some(const Problem& p, State& prefix, State& suffix) {
  for (std::int64_t head = 0; head < p.heads; ++head) {
    if (p.tokens > 1) prefix.lse.set(head, 1, 0, -INFINITY);
    if (p.tokens > 2) suffix.lse.set(head, 2, 0, -INFINITY);
    if (p.tokens > 3) prefix.lse.set(head, 3, 0, INFINITY);
    if (p.tokens > 3) suffix.lse.set(head, 3, 0, -INFINITY);
  }
}

double weight(double lse) { return std::isinf(lse) ? 0 : std::exp(lse); }

void expect_merged(const Problem& p, const State& prefix, const State& suffix, const Array& out,
                   const Array& lse, const std::string& what) {
  const auto weights = [&](std::int64_t token, std::int64_t head) {
    const bool has_prefix = p.with_context < 0 || token < p.with_context;
    return std::make_pair(has_prefix ? weight(prefix.lse.at(head, token)) : 0.0,
                          weight(suffix.lse.at(head, token)));
  };
  // Rounded once: half a unit in the last place, and of fp8 what is subnormal.
  const double relative = p.scale > 0 ? 1.0 / 16 : p.out_dtype() == MLA_DTYPE_BFLOAT16 ? 1.0 / 256 : 1.0 / 2048;
  const double absolute = p.scale > 0 ? 1.0 / 512 : 1e-6;
  out.each([&](std::int64_t token, std::int64_t head, std::int64_t d) {
    const auto [before, after] = weights(token, head);
    const double sum = before + after;
    double right = sum == 0 ? 0
                            : ((before > 0 ? before * prefix.out.at(token, head, d) : 0) +
                               (after > 0 ? after * suffix.out.at(token, head, d) : 0)) / sum;
    if (p.scale > 0) right = std::max(-448.0, std::min(448.0, right / static_cast<double>(p.scale)));
    const double got = out.at(token, head, d);
    EXPECT(std::fabs(got - right) <= std::fabs(right) * relative * 1.01 + absolute, "%s: out of %d is %g, not %g",
           what.c_str(), static_cast<int>(token), got, right);
  });
  lse.each([&](std::int64_t head, std::int64_t token, std::int64_t) {
    const auto [before, after] = weights(token, head);
    const double right = before + after == 0 ? -INFINITY : std::log(before + after);
    const double got = lse.at(head, token);
    EXPECT(got == right || std::fabs(got - right) < 1e-5, "%s: lse of %d is %g, not %g", what.c_str(),
           static_cast<int>(token), got, right);
  });
  EXPECT(out.gaps_are_intact() && lse.gaps_are_intact(), "%s: wrote between rows", what.c_str());
}

void expect_right(const Problem& p, bool in_place, const std::string& what) {
  std::mt19937 random(3);
  const test::Stream stream;
  State prefix(p, random), suffix(p, random);
  empty_some(p, prefix, suffix);
  Array out(p.out_dtype(), {p.tokens, p.heads, p.dim}, p.padding);
  Array lse(MLA_DTYPE_FLOAT32, {p.heads, p.tokens}, p.padding);
  const DeviceArray before(prefix.out, 0, p.shift), before_lse(prefix.lse), after(suffix.out, 0, p.shift),
      after_lse(suffix.lse), apart(out), apart_lse(lse);
  before.upload(prefix.out, stream);
  before_lse.upload(prefix.lse, stream);
  after.upload(suffix.out, stream);
  after_lse.upload(suffix.lse, stream);
  apart.upload(out, stream);
  apart_lse.upload(lse, stream);
  const DeviceArray &to = in_place ? after : apart, &to_lse = in_place ? after_lse : apart_lse;
  mla_merge_args args = MLA_MERGE_ARGS_INIT;
  args.output = &to.view(), args.output_lse = &to_lse.view();
  args.prefix_output = &before.view(), args.prefix_lse = &before_lse.view();
  args.suffix_output = &after.view(), args.suffix_lse = &after_lse.view();
  args.prefill_tokens_with_context = p.with_context;
  args.output_scale = p.scale > 0 ? &p.scale : nullptr;
  args.stream = stream;
  mla::check(mla_merge_attn_states(&args));
  to.download(out, stream);
  to_lse.download(lse, stream);
  expect_merged(p, prefix, suffix, out, lse, what);
}

void every_dtype() {
  const test::Primary primary;
  for (const std::int32_t dtype : {MLA_DTYPE_BFLOAT16, MLA_DTYPE_FLOAT16, MLA_DTYPE_FLOAT32}) {
    const std::string name = test::dtype_name(dtype);
    expect_right({dtype, 37, 2, 128, -1}, false, name);
    expect_right({dtype, 37, 2, 128, 20}, true, name + " in place");
    expect_right({dtype, 9, 3, 33, 0, 5}, false, name + " strided");
    expect_right({dtype, 11, 1, 128, 11, 1, 4}, false, name + " at odd addresses");
    expect_right({dtype, 17, 2, 128, 9, 0, 0, 0.01F}, false, name + " to fp8");
    expect_right({dtype, 1, 1, 1, -1}, false, name + " of one number");
    for (const std::int32_t out : {MLA_DTYPE_BFLOAT16, MLA_DTYPE_FLOAT16, MLA_DTYPE_FLOAT32})
      expect_right({dtype, 9, 2, 128, 5, 3, 0, 0, out}, false, name + " to " + test::dtype_name(out));
  }
}

void without_rows() {
  const test::Primary primary;
  expect_right({MLA_DTYPE_BFLOAT16, 0, 2, 128, -1}, false, "no tokens");
}

void more_heads_than_a_launch_has() {
  const test::Primary primary;
  try {
    expect_right({MLA_DTYPE_BFLOAT16, 1, 65536, 1, -1}, false, "65536 heads");
  } catch (const mla::error& failure) {
    EXPECT(failure.status() == MLA_ERROR_UNSUPPORTED_CONFIGURATION &&
               std::strstr(failure.what(), "output.shape[1] = 65536: must be at most 65535"),
           "%s", failure.what());
    return;
  }
  test::fail("65536 heads were merged");
}

}  // namespace

int main(int argc, char** argv) {
  return test::run_on("90", argc, argv,
                      {{"device: merging every dtype", every_dtype},
                       {"device: merging nothing", without_rows},
                       {"device: more heads than a launch has", more_heads_than_a_launch_has}});
}
