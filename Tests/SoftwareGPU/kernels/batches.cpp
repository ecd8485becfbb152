#include "batches.hpp"

#include <cmath>

#include "report.hpp"

namespace {

/// Weights are rounded to the inputs' format, results to their own.
double out_bound(Format format, Format out) { return format == Format::bf16 || out == Format::bf16 ? 4e-3 : 1.5e-3; }
constexpr double lse_bound = 2e-4;

/// Sometimes up to a block's end or one key before it, and far enough to fill each stage of
/// a pipeline several times.
int extended(int keys, Random& random) {
  if (random.chance(0.7)) return keys;
  return (keys / MLA_CUDA_WIDE_TILE + random.between(1, 5)) * MLA_CUDA_WIDE_TILE - random.between(0, 1);
}

std::vector<std::pair<int, int>> some_lengths(const AttentionShape& shape, bool is_causal, Random& random) {
  const int sizes[] = {0, 1, 1, 2, 15, 16, 17, 63, 64, 65, 100, 128, 129, 150};
  std::vector<std::pair<int, int>> lengths;
  for (int i = random.between(1, 4); i > 0; --i) {
    const int queries = random.pick(sizes), more = random.chance(0.5) ? 0 : random.pick(sizes);
    const int keys = is_causal ? queries + more : random.pick(sizes);
    lengths.push_back({queries, shape.is_by_tiles ? extended(keys, random) : keys});
  }
  return lengths;
}

Options some_options(const AttentionShape& shape, Random& random) {
  Options options;
  options.is_causal = random.chance(0.7);
  options.wants_lse = random.chance(0.8);
  options.out = random.chance(0.25) ? Format::fp8 : shape.format;
  if (options.out == Format::fp8) options.out_multiplier = random.chance(0.5) ? 1 : 300;
  for (Layout& layout : options.layouts) layout = random.chance(0.4) ? Layout::dense : random.pick(layouts);
  options.seed = random.next();
  Random more(options.seed);
  if (options.out != Format::fp8 && more.chance(0.3)) options.out = more.pick({Format::fp32, Format::fp16, Format::bf16});
  return options;
}

/// fp8 by itself: each code is one that the bound allows.
bool are_near(const std::vector<double>& codes, const std::vector<double>& exact, double multiplier, double bound) {
  for (std::size_t i = 0; i < codes.size(); ++i) {
    if (std::isnan(exact[i]) ? !std::isnan(codes[i]) : std::isnan(codes[i])) return false;
    const double slack = 4 * bound * multiplier;
    const double low = value_of(Format::fp8, bits_from(Format::fp8, exact[i] * multiplier - slack));
    const double high = value_of(Format::fp8, bits_from(Format::fp8, exact[i] * multiplier + slack));
    if (codes[i] < low || codes[i] > high) return false;
  }
  return true;
}

/// What lies in no request has its poison still.
void expect_right(Report& report, const std::string& what, const Problem& problem, const Options& options,
                  double slack) {
  const auto outputs = run(problem, options);
  const Results exact = attention(problem.q, problem.k, problem.v, problem.requests, problem.scale, options.is_causal);
  const double bound = slack * out_bound(problem.shape.format, options.out);
  if (options.out == Format::fp8)
    report.expect(are_near(outputs->out_values(), exact.out, options.out_multiplier, bound), what + ": out");
  else
    report.expect_at_most(relative_error(outputs->out_values(), exact.out), bound, what + ": out");
  if (options.wants_lse)
    report.expect_at_most(largest_error(outputs->lse_values(), exact.lse), slack * lse_bound, what + ": lse");
  const int rows = problem.q.rows - Problem::spare;
  report.expect(outputs->out.is_intact_outside(Problem::spare, rows), what + ": wrote beside out");
  report.expect(options.wants_lse ? outputs->lse.is_intact() : outputs->lse.is_intact_outside(0, 0),
                what + ": wrote beside lse");
  report.expect(run(problem, options)->bits() == outputs->bits(), what + ": other bits a second time");
}

}  // namespace

void random_batches(bool is_by_tiles, int seeds) {
  for (const AttentionShape& shape : attention_shapes()) {
    if (shape.is_by_tiles != is_by_tiles) continue;
    Report report(shape.kernel() + " against float64");
    for (int seed = 0; seed < seeds; ++seed) {
      Random random(1000003u * seed + shape.qk * 7 + shape.v + (shape.format == Format::bf16));
      const Options options = some_options(shape, random);
      Problem problem(shape, random.between(1, 2), some_lengths(shape, options.is_causal, random), random, options.layouts);
      const Pattern patterns[] = {Pattern::rising, Pattern::falling, Pattern::shuffled, Pattern::spike_last,
                                  Pattern::spike_first};
      const bool is_normal = random.chance(0.75);
      problem.fill(is_normal ? Pattern::normal : random.pick(patterns), 0.1 * std::exp2(random.uniform() * 6), random);
      expect_right(report, "seed " + std::to_string(seed), problem, options, is_normal ? 1 : 4);
    }
  }
}
