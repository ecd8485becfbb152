// The merge kernels on the model, against float64.
#include <cmath>
#include <cstdlib>
#include <memory>

#include "problem.hpp"
#include "report.hpp"

namespace {

constexpr Format formats[] = {Format::bf16, Format::fp16, Format::fp32};

/// Two results of the same tokens, and how they are to be merged.
struct Sides {
  int tokens, heads, dim, with_context;
  Tensor prefix, suffix, prefix_lse, suffix_lse;
  Format out;
  float multiplier = 1;
  Layout out_layout;

  /// Rows of every kind: present on both sides, on one, on none; lse of both infinities;
  /// weights that differ a little and by 1e30.
  Sides(Format format, Random& random)
      : tokens(random.between(1, 21)),
        heads(random.between(1, 3)),
        dim(random.pick({128, 256, 64, 24, 33, 1, 512})),
        with_context(random.chance(0.6) ? tokens : random.between(0, tokens)),
        prefix(format, tokens, heads, dim, random.pick(layouts)),
        suffix(format, tokens, heads, dim, random.pick(layouts)),
        prefix_lse(Format::fp32, heads, 1, tokens, Layout::odd),
        suffix_lse(Format::fp32, heads, 1, tokens, Layout::apart),
        out(random.chance(0.3) ? Format::fp8 : format),
        out_layout(random.pick(layouts)) {
    if (out != Format::fp8 && random.chance(0.3)) out = random.pick(formats);
    if (out == Format::fp8) multiplier = random.pick({1.0f, 0.5f, 40.0f, 1000.0f});
    fill(prefix, prefix_lse, random);
    fill(suffix, suffix_lse, random);
  }

  void fill(Tensor& values, Tensor& lse, Random& random) {
    values.fill(random, 3);
    lse.fill(random, random.pick({0.1, 3.0, 40.0}));
    for (int head = 0; head < heads; ++head)
      for (int token = 0; token < tokens; ++token)
        if (random.chance(0.3)) {
          lse.set(head, 0, token, random.chance(0.7) ? -INFINITY : INFINITY);
          // Nobody wrote the values of a side without keys.
          for (int d = 0; d < dim; ++d)
            if (random.chance(0.1)) values.set(token, head, d, NAN);
        }
  }

  Results reference() const {
    Results results;
    results.lse.resize(static_cast<std::size_t>(heads) * tokens);
    for (int token = 0; token < tokens; ++token)
      for (int head = 0; head < heads; ++head) {
        const double first = token < with_context ? lse_of(prefix_lse, head, token) : -INFINITY;
        const double second = lse_of(suffix_lse, head, token);
        const double largest = std::fmax(first, second), base = std::isinf(largest) ? 0 : largest;
        const double weights[] = {std::exp(first - base), std::exp(second - base)};
        const double sum = weights[0] + weights[1];
        results.lse[static_cast<std::size_t>(head) * tokens + token] = base + std::log(sum);
        for (int d = 0; d < dim; ++d) {
          double value = 0;
          if (weights[0] > 0) value += weights[0] / sum * prefix.get(token, head, d);
          if (weights[1] > 0) value += weights[1] / sum * suffix.get(token, head, d);
          results.out.push_back(value * multiplier);
        }
      }
    return results;
  }

  static double lse_of(const Tensor& lse, int head, int token) {
    const double value = lse.get(head, 0, token);
    return value == INFINITY ? -INFINITY : value;
  }

  mla_cuda_merge arguments() const {
    mla_cuda_merge a = {};
    a.prefix = prefix.view(), a.suffix = suffix.view();
    a.prefix_lse = lse_view(prefix_lse), a.suffix_lse = lse_view(suffix_lse);
    a.token_count = tokens, a.dimension = dim, a.tokens_with_context = with_context;
    a.out_multiplier = multiplier;
    a.out_type = dtype_of(out);
    return a;
  }

  static mla_cuda_lse lse_view(const Tensor& lse) {
    const mla_cuda_rows rows = lse.view();
    return {static_cast<float*>(rows.data), rows.token_stride};
  }

  /// Into `out` and `lse`, which may be a side's; `lse` may be null.
  void run(const Tensor& to, const Tensor* lse, std::uint64_t seed, std::uint64_t machine) const {
    mla_cuda_merge a = arguments();
    a.out = to.view();
    if (lse) a.out_lse = lse_view(*lse);
    const int blocks = (tokens + MLA_CUDA_MERGE_TOKENS - 1) / MLA_CUDA_MERGE_TOKENS;
    launch(std::string("mla_merge_") + name_of(prefix.format), blocks, heads, MLA_CUDA_MERGE_THREADS, 0, &a, sizeof a,
           seed, machine);
  }
};

double out_bound(Format format) { return format == Format::bf16 ? 0x1p-8 : format == Format::fp16 ? 0x1p-11 : 1e-6; }

/// Rounding is to a neighbour of the exact value at least.
bool are_nearest(const Tensor& out, const std::vector<double>& exact) {
  const std::vector<std::uint32_t> bits = out.bits();
  for (std::size_t i = 0; i < exact.size(); ++i) {
    const double value = value_of(Format::fp8, bits[i]), saturated = std::fmax(-448, std::fmin(448, exact[i]));
    const double nearest = value_of(Format::fp8, bits_from(Format::fp8, exact[i]));
    if (!(std::fabs(value - saturated) <= std::fabs(nearest - saturated) + 1e-5 * std::fabs(saturated))) return false;
  }
  return true;
}

std::vector<double> values_of(const Tensor& tensor) {
  std::vector<double> all;
  for (std::uint32_t bits : tensor.bits()) all.push_back(value_of(tensor.format, bits));
  return all;
}

double lse_error(const std::vector<double>& actual, const std::vector<double>& expected) {
  double largest = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double size = std::isinf(expected[i]) ? 1 : std::fmax(1, std::fabs(expected[i]));
    largest = std::fmax(largest, largest_error({actual[i]}, {expected[i]}) / size);
  }
  return largest;
}

void random_sides(Format format, int seeds) {
  Report report(std::string("mla_merge_") + name_of(format) + " against float64");
  for (int seed = 0; seed < seeds; ++seed) {
    Random random(77 + 1000003u * seed);
    const Sides sides(format, random);
    const std::string what = "seed " + std::to_string(seed);
    Tensor out(sides.out, sides.tokens, sides.heads, sides.dim, sides.out_layout);
    Tensor lse(Format::fp32, sides.heads, 1, sides.tokens, Layout::odd);
    sides.run(out, random.chance(0.8) ? &lse : nullptr, random.next(), 0);
    const bool has_lse = lse.bits(0, 0, 0) != poison_of(Format::fp32);
    const Results exact = sides.reference();
    if (sides.out == Format::fp8)
      report.expect(are_nearest(out, exact.out), what + ": out");
    else
      report.expect_at_most(relative_error(values_of(out), exact.out), out_bound(sides.out), what + ": out");
    if (has_lse) report.expect_at_most(lse_error(values_of(lse), exact.lse), 1e-6, what + ": lse");
    report.expect(out.is_intact() && (has_lse ? lse.is_intact() : lse.is_intact_outside(0, 0)),
                  what + ": wrote beside its rows");
  }
}

/// A view that is a side's own may be overwritten, and its lse, whichever it is.
void in_place(Format format, int seeds) {
  Report report(std::string("mla_merge_") + name_of(format) + " in place");
  for (int seed = 0; seed < seeds; ++seed)
    for (int side = 0; side < 2; ++side) {
      Random random(78 + seed);
      Sides sides(format, random);
      sides.out = format, sides.multiplier = 1;
      Tensor out(format, sides.tokens, sides.heads, sides.dim), lse(Format::fp32, sides.heads, 1, sides.tokens);
      sides.run(out, &lse, 3 * seed, 1);
      const Tensor& target = side ? sides.suffix : sides.prefix;
      const Tensor& target_lse = side ? sides.suffix_lse : sides.prefix_lse;
      sides.run(target, &target_lse, 5 * seed + 1, 1);
      report.expect(target.bits() == out.bits() && target_lse.bits() == lse.bits(), "seed " + std::to_string(seed));
      report.expect(target.is_intact() && target_lse.is_intact(), "wrote beside its rows");
    }
}

/// A row of NaN for an lse; a side that weighs 0 may hold anything, one that is alone is copied.
void special_rows() {
  Report report("mla_merge of NaN for an lse, of sides that weigh 0, of a suffix alone");
  for (Format format : formats) {
    Random random(5);
    Sides sides(format, random);
    sides.out = format, sides.multiplier = 1, sides.with_context = sides.tokens - 1;
    sides.suffix.fill(random, 3);
    sides.suffix_lse.fill(random);
    sides.prefix.fill(random, 3);
    sides.prefix_lse.fill(random);
    sides.prefix_lse.set(0, 0, 0, NAN);
    for (int d = 0; d < sides.dim; ++d) {
      sides.prefix.set(1, 0, d, NAN);
      sides.prefix.set(sides.tokens - 1, 0, d, NAN);
    }
    sides.prefix_lse.set(0, 0, 1, -200);
    sides.prefix_lse.set(0, 0, sides.tokens - 1, NAN);
    Tensor out(format, sides.tokens, sides.heads, sides.dim), lse(Format::fp32, sides.heads, 1, sides.tokens);
    sides.run(out, &lse, 1, 0);
    for (int d = 0; d < sides.dim; ++d) {
      report.expect(std::isnan(out.get(0, 0, d)), "NaN for an lse does not make NaN of its row");
      report.expect(out.bits(1, 0, d) == sides.suffix.bits(1, 0, d), "values of a side that weighs 0 matter");
      report.expect(out.bits(sides.tokens - 1, 0, d) == sides.suffix.bits(sides.tokens - 1, 0, d),
                    "a suffix alone is not copied");
    }
    report.expect(std::isnan(lse.get(0, 0, 0)), "NaN for an lse does not make NaN of the lse");
    report.expect(lse.bits(0, 0, sides.tokens - 1) == sides.suffix_lse.bits(0, 0, sides.tokens - 1),
                  "the lse of a suffix alone is not its own");
  }
}

}  // namespace

int main(int count, char** arguments) {
  const int seeds = count > 1 ? std::atoi(arguments[1]) : 60;
  return Report::run([&] {
    for (Format format : formats) random_sides(format, seeds);
    for (Format format : formats) in_place(format, seeds / 3 + 1);
    special_rows();
  });
}
