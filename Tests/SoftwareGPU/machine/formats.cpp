#include "../include/SoftwareGPU/formats.hpp"

#include "block.hpp"

namespace {

u16 bf16_of(float value) {
  const u32 bits = bits_of(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return 0x7FFF;
  return static_cast<u16>((bits + 0x7FFFu + (bits >> 16 & 1)) >> 16);
}

// To nearest, ties to even; what is too large is infinite.
u16 fp16_of(float value) {
  const u32 bits = bits_of(value), magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return 0x7FFF;
  const u16 sign = static_cast<u16>(bits >> 16 & 0x8000u);
  if (magnitude >= 0x477FF000u) return sign | 0x7C00;
  // Below 2^-14 the smallest step is 2^-24: adding 2^-1 rounds to it.
  if (magnitude < 0x38800000u) return static_cast<u16>(sign | (bits_of(float_of(magnitude) + 0.5f) - 0x3F000000u));
  return static_cast<u16>(sign | ((magnitude + 0xFFFu + (magnitude >> 13 & 1)) - 0x38000000u) >> 13);
}

float flushed(float value) { return std::fabs(value) < 0x1p-126f ? std::copysign(0.0f, value) : value; }

// What a machine makes of an operand where the manual leaves it open.
SoftwareGPU::Random choice(float operand) {
  using SoftwareGPU::block, SoftwareGPU::Random;
  if (block.options.machine) return Random(block.options.machine * 0x100000001b3u ^ bits_of(operand));
  return Random(block.random.next());
}

// Anywhere within a bound.
double error(SoftwareGPU::Random of, double bound) {
  return bound * (static_cast<double>(of.next() >> 11) * 0x1p-52 - 1);
}

}  // namespace

float fp16_value(u16 bits) {
  const u32 exponent = bits >> 10 & 31, fraction = bits & 1023;
  if (exponent == 31 && fraction != 0) return float_of(0x7FFFFFFF);
  const float size = exponent == 31  ? HUGE_VALF
                     : exponent == 0 ? static_cast<float>(fraction) * 0x1p-24f
                                     : float_of((exponent + 112) << 23 | fraction << 13);
  return (bits & 0x8000) != 0 ? -size : size;
}

u32 pack_bf16(float low, float high) { return bf16_of(low) | static_cast<u32>(bf16_of(high)) << 16; }
u32 pack_fp16(float low, float high) { return fp16_of(low) | static_cast<u32>(fp16_of(high)) << 16; }

float exp2_approx(float value) {
  const float x = flushed(value);
  if (std::isnan(x)) return float_of(0x7FFFFFFF);
  if (x == 0) return 1;
  const float nearest = static_cast<float>(std::exp2(static_cast<double>(x)));
  if (nearest < 0x1p-126f || std::isinf(nearest)) return flushed(nearest);
  // "The maximum ulp error is 2 ulp from correctly rounded result."
  return flushed(float_of(bits_of(nearest) + choice(x).below(5) - 2));
}

float log2_approx(float value) {
  const float x = flushed(value);
  if (std::isnan(x) || x < 0) return float_of(0x7FFFFFFF);
  if (x == 0) return -HUGE_VALF;
  const double exact = std::log2(static_cast<double>(x));
  if (std::isinf(x)) return x;
  // "The maximum absolute error is 2^-22 when the input operand is in the range (0.5, 2). For
  // positive finite inputs outside of this interval, maximum relative error is 2^-22."
  return static_cast<float>(x > 0.5f && x < 2 ? exact + error(choice(x), 0x1p-22)
                                              : exact * (1 + error(choice(x), 0x1p-22)));
}
