// The kernels that take latents to keys and values, on the model: products against float64, keys
// against their parts.
#include <cmath>
#include <cstdlib>

#include "problem.hpp"
#include "report.hpp"

namespace {

constexpr Format formats[] = {Format::bf16, Format::fp16};

struct Product {
  Format format;
  Tensor in, weights;

  Product(Format format, int rows, int columns, int depth, Random& random, Layout in_layout = Layout::dense,
          Layout weights_layout = Layout::dense)
      : format(format), in(format, rows, 1, depth, in_layout), weights(format, columns, 1, depth, weights_layout) {
    in.fill(random);
    weights.fill(random, 0.1);
  }

  /// Rows and columns from the first on.
  void run(const Tensor& out, std::uint64_t seed, std::uint64_t machine) const {
    mla_cuda_projection a = {};
    a.in = in.view(), a.weights = weights.view(), a.out = out.view();
    a.row_count = out.rows, a.column_count = out.dim, a.depth = in.dim;
    const auto tiles = [](int count) { return (count + MLA_CUDA_PROJECTION_TILE - 1) / MLA_CUDA_PROJECTION_TILE; };
    launch(std::string("mla_project_") + name_of(format), tiles(out.rows), tiles(out.dim), MLA_CUDA_PROJECTION_THREADS,
           MLA_CUDA_PROJECTION_SHARED, &a, sizeof a, seed, machine);
  }

  /// How far an output is off, of what rounding allows.
  double error(const Tensor& out, int row, int column) const {
    double exact = 0, sizes = 0;
    for (int d = 0; d < in.dim; ++d) {
      const double product = in.get(row, 0, d) * weights.get(column, 0, d);
      exact += product;
      sizes += std::fabs(product);
    }
    const double of_sums = (in.dim + 1) * 0x1p-24 * sizes;
    const double of_rounding = format == Format::bf16 ? 0x1p-9 : 0x1p-12;
    return std::fabs(out.get(row, 0, column) - exact) / (of_sums + 2 * of_rounding * (std::fabs(exact) + of_sums));
  }
};

void random_products(Format format, int seeds) {
  Report report(std::string("mla_project_") + name_of(format) + " against float64");
  for (int seed = 0; seed < seeds; ++seed) {
    Random random(41 + 1000003u * seed);
    const int rows = random.pick({1, 2, 15, 63, 64, 65, 127, 128, 129, 200});
    const int columns = random.pick({8, 64, 72, 120, 128, 136, 192, 264});
    const Layout in_layout = random.pick(layouts), weights_layout = random.pick(layouts);
    const Product product(format, rows, columns, random.pick({64, 128, 192, 512}), random, in_layout, weights_layout);
    const Tensor out(format, rows, 1, columns, random.chance(0.5) ? Layout::dense : Layout::apart);
    product.run(out, random.next(), 0);
    const std::string what = "seed " + std::to_string(seed);
    for (int row = 0; row < rows; ++row)
      for (int column = 0; column < columns; ++column)
        report.expect_at_most(product.error(out, row, column), 1, what);
    report.expect(out.is_intact(), what + ": wrote beside its rows");
  }
}

/// Whatever else is in a launch.
void bits_of_an_output(Format format) {
  Report report(std::string("mla_project_") + name_of(format) + ": an output depends on its row and column, to the bit");
  Random random(43);
  Product product(format, 140, 136, 192, random);
  const Tensor whole(format, 140, 1, 136), part(format, 3, 1, 16);
  product.run(whole, 1, 7);
  product.run(part, 2, 7);
  for (int row = 0; row < part.rows; ++row)
    for (int column = 0; column < part.dim; ++column)
      report.expect(part.bits(row, 0, column) == whole.bits(row, 0, column), "fewer rows and columns");
  product.in.set(70, 0, 191, NAN);
  product.weights.set(9, 0, 0, INFINITY);
  const Tensor after(format, 140, 1, 136);
  product.run(after, 3, 7);
  for (int row = 0; row < 140; ++row)
    for (int column = 0; column < 136; ++column) {
      if (row == 70 || column == 9)
        report.expect(!std::isfinite(after.get(row, 0, column)), "what is not finite shows");
      else
        report.expect(after.bits(row, 0, column) == whole.bits(row, 0, column), "and nowhere else");
    }
}

void random_keys(int seeds) {
  Report report("mla_concat_keys: each head's part, and the token's");
  for (int seed = 0; seed < seeds; ++seed) {
    Random random(47 + 1000003u * seed);
    const int tokens = random.between(1, 9), heads = random.between(1, 9);
    const int nope_width = random.pick({0, 8, 64, 128, 192}), rope_width = random.pick({0, 8, 64});
    if (nope_width + rope_width == 0) continue;
    const auto layout = [&] { return random.chance(0.5) ? Layout::dense : Layout::apart; };
    Tensor nope(Format::bf16, tokens, heads, nope_width, layout()), rope(Format::bf16, tokens, 1, rope_width, layout());
    const Tensor keys(Format::bf16, tokens, heads, nope_width + rope_width, layout());
    nope.fill(random), rope.fill(random);
    mla_cuda_keys a = {};
    a.nope = nope.view(), a.keys = keys.view();
    if (rope_width > 0) a.rope = rope.view();
    a.head_count = heads, a.nope_width = nope_width, a.rope_width = rope_width;
    launch("mla_concat_keys", tokens, 1, MLA_CUDA_KEYS_THREADS, 0, &a, sizeof a, random.next(), 0);
    for (int token = 0; token < tokens; ++token)
      for (int head = 0; head < heads; ++head)
        for (int d = 0; d < keys.dim; ++d) {
          const std::uint32_t bits = d < nope_width ? nope.bits(token, head, d) : rope.bits(token, 0, d - nope_width);
          report.expect(keys.bits(token, head, d) == bits, "seed " + std::to_string(seed));
        }
    report.expect(keys.is_intact(), "seed " + std::to_string(seed) + ": wrote beside its rows");
  }
}

}  // namespace

int main(int count, char** arguments) {
  const int seeds = count > 1 ? std::atoi(arguments[1]) : 20;
  return Report::run([&] {
    for (Format format : formats) {
      random_products(format, seeds);
      bits_of_an_output(format);
    }
    random_keys(seeds);
  });
}
