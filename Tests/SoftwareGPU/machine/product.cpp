#include "product.hpp"

#include <immintrin.h>

#include <cstring>
#include <utility>

namespace SoftwareGPU {

namespace {

typedef float Floats __attribute__((vector_size(32)));
typedef u32 Words __attribute__((vector_size(32)));

Words widen(const u16* numbers) {
  Words words;
  for (int i = 0; i < 8; ++i) words[i] = numbers[i];
  return words;
}

template <class To, class From>
To as(From from) {
  static_assert(sizeof(To) == sizeof(From), "the same bits");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

Floats values(Operand operand, const u16* numbers) {
  const Words bits = widen(numbers);
  if (operand == Operand::bf16) return as<Floats>(bits << 16);
  // The exponent is 112 too small; infinite and NaN it is of all ones.
  const Words magnitude = (bits & 0x7FFFu) << 13;
  const Words special = as<Words>(magnitude >= 0x0F800000u) & 0x7F800000u;
  const Words finite = as<Words>(as<Floats>(magnitude) * 0x1p112f);
  return as<Floats>(finite | special | (bits & 0x8000u) << 16);
}

/// The state of floating-point arithmetic within a scope.
class ArithmeticState {
 public:
  explicit ArithmeticState(const ProductRules& rules) : saved_(_mm_getcsr()) {
    constexpr unsigned flush_results = 0x8000, round_to_zero = 0x6000, operands_are_zero = 0x0040;
    _mm_setcsr(_MM_MASK_MASK | (rules.truncates ? round_to_zero : 0) |
               (rules.flushes_subnormals ? flush_results | operands_are_zero : 0));
  }
  ~ArithmeticState() { _mm_setcsr(saved_); }
  ArithmeticState(const ArithmeticState&) = delete;

 private:
  unsigned saved_;
};

}  // namespace

ProductRules::ProductRules(Random& random) {
  for (u32 i = 16; i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
  starts_with_d = random.one_in(2);
  truncates = random.one_in(2);
  flushes_subnormals = random.one_in(2);
}

// Products of two such numbers are exact in fp32: fused or not is the same.
void multiply_add_tile(Operand operand, const ProductRules& rules, const u16 (&a)[16][16], const u16 (&b)[16][8],
                       float (&d)[16][8]) {
  alignas(32) float left[16][16];
  Floats right[16];
  for (int row = 0; row < 16; ++row) {
    for (int half = 0; half < 2; ++half) {
      const Floats eight = values(operand, &a[row][8 * half]);
      std::memcpy(&left[row][8 * half], &eight, sizeof eight);
    }
    right[row] = values(operand, b[row]);
  }
  const ArithmeticState state(rules);
  for (int row = 0; row < 16; ++row) {
    Floats before, sum = {};
    std::memcpy(&before, d[row], sizeof before);
    if (rules.starts_with_d) sum = before;
    for (const int k : rules.order) sum += left[row][k] * right[k];
    if (!rules.starts_with_d) sum += before;
    std::memcpy(d[row], &sum, sizeof sum);
  }
}

}  // namespace SoftwareGPU
