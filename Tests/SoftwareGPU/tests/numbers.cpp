// Conversions and approximations (PTX ISA, "cvt", "ex2", "lg2").
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <set>

#include "support.hpp"

namespace {

using namespace test;

constexpr float infinite = std::numeric_limits<float>::infinity();

/// Of a format of `fraction_bits`, whose normal numbers begin at 2^`least` and which ends
/// below 2^`end`: to nearest, ties to even.
double rounded(double x, int fraction_bits, int least, int end) {
  if (x == 0 || !std::isfinite(x)) return x;
  const int exponent = std::max(std::ilogb(x), least);
  const double units = std::nearbyint(std::ldexp(x, fraction_bits - exponent));
  const double result = std::ldexp(units, exponent - fraction_bits);
  return std::fabs(result) >= std::ldexp(1.0, end) ? std::copysign(HUGE_VAL, x) : result;
}

double bf16(u16 bits) { return static_cast<double>(float_of(static_cast<u32>(bits) << 16)); }

/// A number's format in the manual's words: sign, exponent, fraction.
double fp16(u16 bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double sign = bits >> 15 != 0 ? -1 : 1;
  if (exponent == 31) return fraction != 0 ? std::nan("") : sign * HUGE_VAL;
  return exponent == 0 ? sign * std::ldexp(fraction, -24) : sign * std::ldexp(1024 + fraction, exponent - 25);
}

bool same(double a, double b) {
  return (std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b));
}

void unpacking() {
  for (int bits = 0; bits < 65536; ++bits)
    EXPECT(same(static_cast<double>(fp16_value(static_cast<u16>(bits))), fp16(static_cast<u16>(bits))), "%04x",
           static_cast<unsigned>(bits));
}

void check_packing(float x, float y) {
  const u32 b = pack_bf16(x, y), h = pack_fp16(x, y);
  EXPECT(same(bf16(static_cast<u16>(b)), rounded(static_cast<double>(x), 7, -126, 128)), "%a is %04x",
         static_cast<double>(x), b & 0xFFFF);
  EXPECT(same(bf16(static_cast<u16>(b >> 16)), rounded(static_cast<double>(y), 7, -126, 128)), "%a is %04x",
         static_cast<double>(y), b >> 16);
  EXPECT(same(fp16(static_cast<u16>(h)), rounded(static_cast<double>(x), 10, -14, 16)), "%a is %04x",
         static_cast<double>(x), h & 0xFFFF);
  EXPECT(same(fp16(static_cast<u16>(h >> 16)), rounded(static_cast<double>(y), 10, -14, 16)), "%a is %04x",
         static_cast<double>(y), h >> 16);
}

void packing() {
  std::mt19937 random(1);
  for (int i = 0; i < 300000; ++i) {
    // Half of them next to what fp16 has.
    const u32 bits = i % 2 == 0 ? random() : (random() & 0x80000000u) | (0x32800000u + random() % 0x17000000u) | 0xFFF;
    check_packing(float_of(bits), float_of(bits + 1));
  }
  for (const float x : {0.0f, -0.0f, infinite, 65504.0f, 65519.996f, 65520.0f, 0x1p-24f, 0x1p-25f, 0x1.000002p-25f,
                        0x1.8p-24f, 0x1.ffcp-15f, 0x1p-14f})
    check_packing(x, -x);
  EXPECT(pack_bf16(std::nanf(""), -std::nanf("")) == 0x7FFF7FFF, "NaN is 0x7FFF");
  EXPECT(pack_fp16(std::nanf(""), -std::nanf("")) == 0x7FFF7FFF, "NaN is 0x7FFF");
}

void exponentials() {
  std::mt19937 random(2);
  std::uniform_real_distribution<float> any(-125, 127);
  std::set<long> errors;
  for (int i = 0; i < 100000; ++i) {
    const float x = any(random), exact = static_cast<float>(std::exp2(static_cast<double>(x)));
    errors.insert(static_cast<long>(bits_of(exp2_approx(x))) - static_cast<long>(bits_of(exact)));
  }
  EXPECT(*errors.begin() == -2 && *errors.rbegin() == 2, "errors from %ld to %ld ulp", *errors.begin(),
         *errors.rbegin());
  EXPECT(exp2_approx(0.0f) == 1 && exp2_approx(-0.0f) == 1 && exp2_approx(0x1p-140f) == 1, "of 0");
  EXPECT(exp2_approx(infinite) == infinite && same(static_cast<double>(exp2_approx(-infinite)), 0), "of infinity");
  EXPECT(exp2_approx(-130) == 0 && exp2_approx(300) == infinite, "beyond normal numbers");
  EXPECT(std::isnan(exp2_approx(std::nanf(""))), "of NaN");
}

void logarithms() {
  std::mt19937 random(3);
  double within = 0, beyond = 0;
  for (int i = 0; i < 200000; ++i) {
    const float x = i % 2 == 0 ? 0.5f + static_cast<float>(random() % 1500000) * 1e-6f
                               : float_of(0x00800000u + random() % 0x7F000000u);
    const double exact = std::log2(static_cast<double>(x)),
                 error = std::fabs(static_cast<double>(log2_approx(x)) - exact);
    // Its own rounding comes on top.
    const double rounding = std::fabs(exact) * 0x1p-24;
    if (x > 0.5f && x < 2) {
      within = std::max(within, error - rounding);
    } else {
      beyond = std::max(beyond, (error - rounding) / std::fabs(exact));
    }
  }
  EXPECT(within <= 0x1p-22 && within > 0.8 * 0x1p-22, "%g between 1/2 and 2", within);
  EXPECT(beyond <= 0x1p-22 && beyond > 0.6 * 0x1p-22, "%g of the result", beyond);
  EXPECT(log2_approx(0.0f) == -infinite && log2_approx(-0.0f) == -infinite && log2_approx(0x1p-140f) == -infinite,
         "of 0");
  EXPECT(log2_approx(infinite) == infinite, "of infinity");
  EXPECT(std::isnan(log2_approx(-1)) && std::isnan(log2_approx(-infinite)) && std::isnan(log2_approx(std::nanf(""))),
         "of negative numbers, NaN");
}

}  // namespace

void test::numbers() {
  step("cvt.f32.f16 of every number", unpacking);
  step("cvt.rn.bf16x2 and f16x2", packing);
  step("ex2.approx.ftz is within 2 ulp and uses them", exponentials);
  step("lg2.approx.ftz is within 2^-22 and uses it", logarithms);
}
