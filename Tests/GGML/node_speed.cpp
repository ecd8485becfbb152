/* Attention of single nodes on one thread, ggml's CPU backend and this one in turns: without a mask, of the rate at
 * which floats in registers are multiplied and added right before, as what a shared machine gives changes; and
 * with a mask that shows each row few of the keys, rows a second.
 *
 *   node_speed libggml-mla.so
 */
#include <immintrin.h>

#include <cstdlib>

#include "backend.hpp"
#include "turns.hpp"

namespace {

#ifdef __AVX512F__
using Register = __m512;
Register ones() { return _mm512_set1_ps(1); }
Register multiply_add(Register a, Register b, Register c) { return _mm512_fmadd_ps(a, b, c); }
#else
using Register = __m256;
Register ones() { return _mm256_set1_ps(1); }
Register multiply_add(Register a, Register b, Register c) { return _mm256_fmadd_ps(a, b, c); }
#endif

constexpr int64_t rounds = 2'000'000, chains = 12;

/// A function of its own, whose registers all are its own.
__attribute__((noinline)) void multiply_and_add() {
  Register sums[chains];
  for (Register &sum : sums) sum = ones();
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (Register &sum : sums) sum = multiply_add(sum, sum, sum);
  }
  for (Register &sum : sums) asm volatile("" : : "v"(sum));
}

/// Of a second of processor time: who else is on the machine does not count.
template <typename Work>
double gflops(double products, const Work &work) {
  return rate(2e-9 * products, work, CLOCK_PROCESS_CPUTIME_ID);
}

struct Case {
  int64_t dim, v_dim, heads, kv_heads;
};
constexpr Case cases[] = {{64, 64, 16, 4}, {128, 128, 8, 2}, {192, 128, 8, 8}, {256, 256, 8, 2}, {512, 512, 4, 1}, {576, 512, 8, 1}};

void measure(const Case &it, ggml_type type, Backend &own, Backend &with) {
  Shape shape;
  shape.mask = Mask::none;
  shape.dim = it.dim, shape.v_dim = it.v_dim, shape.heads = it.heads, shape.kv_heads = it.kv_heads;
  shape.rows = 512, shape.keys = 4096;
  shape.k = shape.v = type;
  shape.values_in_keys = it.dim == 576;
  Problem problem(shape, 1);
  const auto products = static_cast<double>(shape.rows * shape.keys * it.heads * (it.dim + it.v_dim));
  in_turns(text_of(shape), 7, [&](int side) {
    const double at_most = gflops(rounds * chains * sizeof(Register) / sizeof(float), multiply_and_add);
    return gflops(products, [&] {
      if ((side == 0 ? own : with).compute(problem) != GGML_STATUS_SUCCESS) std::exit(1);
    }) / at_most;
  });
}

/// Latents of DeepSeek-V3.2, of which each row sees 2048, more or less.
void measure_selected(int64_t heads, ggml_type type, Backend &own, Backend &with) {
  Shape shape;
  shape.mask = Mask::selected, shape.selected_one_in = 16;
  shape.dim = 576, shape.v_dim = 512, shape.values_in_keys = true;
  shape.heads = heads, shape.kv_heads = 1, shape.rows = 64, shape.keys = 32768;
  shape.k = shape.v = type;
  Problem problem(shape, 1);
  in_turns(text_of(shape) + ", rows a second", 3, [&](int side) {
    return rate(64, [&] {
      if ((side == 0 ? own : with).compute(problem) != GGML_STATUS_SUCCESS) std::exit(1);
    }, CLOCK_PROCESS_CPUTIME_ID);
  });
}

}  // namespace

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  begin();
  if (!ggml_backend_load(argv[1])) return 1;
  Backend own(1, "CPU"), with(1);
  for (const ggml_type type : {GGML_TYPE_F16, GGML_TYPE_F32, GGML_TYPE_Q8_0, GGML_TYPE_BF16}) {
    for (const Case &it : cases) measure(it, type, own, with);
  }
  for (const int64_t heads : {16, 128}) measure_selected(heads, GGML_TYPE_F16, own, with);
  return 0;
}
