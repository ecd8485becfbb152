// The kernels that make rows of one dtype those of another, on the model: rounded once.
#include <cmath>
#include <cstdlib>

#include "problem.hpp"
#include "report.hpp"

namespace {

constexpr Format sources[] = {Format::bf16, Format::fp16, Format::fp32};
constexpr double odd[] = {INFINITY, -INFINITY, NAN, 0, 60000};
constexpr Format targets[] = {Format::bf16, Format::fp16, Format::fp32, Format::fp8};

void random_rows(Format from, Format to, int seeds) {
  Report report(std::string("mla_convert_") + name_of(from) + " to " + name_of(to));
  for (int seed = 0; seed < seeds; ++seed) {
    Random random(53 + 1000003u * seed);
    const int rows = random.between(1, 5), heads = random.between(1, 3);
    const int width = random.pick({1, 3, 8, 33, 64, 128, 1100});
    Tensor source(from, rows, heads, width, random.pick(layouts));
    const Tensor target(to, rows, heads, width, random.pick(layouts));
    source.fill(random, 3);
    source.set(0, 0, 0, random.pick(odd));
    mla_cuda_convert a = {};
    a.from = source.view(), a.to = target.view();
    a.width = width, a.to_type = dtype_of(to);
    a.multiplier = random.pick({1.0f, 0.25f, 40.0f});
    launch(std::string("mla_convert_") + name_of(from), rows, heads, MLA_CUDA_CONVERT_THREADS, 0, &a, sizeof a,
           random.next(), 0);
    for (int row = 0; row < rows; ++row)
      for (int head = 0; head < heads; ++head)
        for (int d = 0; d < width; ++d) {
          const float right = static_cast<float>(source.get(row, head, d)) * a.multiplier;
          const double got = target.get(row, head, d);
          report.expect(std::isnan(right) ? std::isnan(got) : target.bits(row, head, d) == bits_from(to, right),
                        "seed " + std::to_string(seed));
        }
    report.expect(target.is_intact(), "seed " + std::to_string(seed) + ": wrote beside its rows");
  }
}

}  // namespace

int main(int count, char** arguments) {
  const int seeds = count > 1 ? std::atoi(arguments[1]) : 20;
  return Report::run([&] {
    for (Format from : sources)
      for (Format to : targets) random_rows(from, to, seeds);
  });
}
