// ldmatrix and mma against their definitions (PTX ISA 9.7.14.5): which lane has what is
// written down here a second time, from the manual's figures.
#include <cmath>
#include <random>
#include <vector>

#include "support.hpp"

namespace {

struct Product {
  const u16 *a, *b;  // [16, 16], [16, 8]
  const float* c;    // [16, 8]
  float* d;
  int is_fp16;
};

}  // namespace

KERNEL(test_product, 32, 1)(PARAMETERS(Product) p) {
  const int group = lane_id() >> 2, in_group = lane_id() & 3;
  u32 a[4], b[2];
  float d[4];
  for (int i = 0; i < 8; ++i) {
    const int row = (i < 2 || (i >= 4 && i < 6)) ? group : group + 8;
    const int column = in_group * 2 + (i & 1) + (i >= 4 ? 8 : 0);
    u16 pair[2];
    pair[i & 1] = load_global<u16>(p.a + row * 16 + column);
    a[i / 2] = i & 1 ? (a[i / 2] & 0xFFFF) | static_cast<u32>(pair[1]) << 16 : pair[0];
  }
  for (int i = 0; i < 4; ++i) {
    const int row = in_group * 2 + (i & 1) + (i >= 2 ? 8 : 0);
    const u32 number = load_global<u16>(p.b + row * 8 + group);
    b[i / 2] = i & 1 ? (b[i / 2] & 0xFFFF) | number << 16 : number;
  }
  for (int i = 0; i < 4; ++i) d[i] = load_global<float>(p.c + (i < 2 ? group : group + 8) * 8 + in_group * 2 + (i & 1));
  if (p.is_fp16) {
    multiply_add_fp16(d, a, b[0], b[1]);
  } else {
    multiply_add_bf16(d, a, b[0], b[1]);
  }
  for (int i = 0; i < 4; ++i) store_global(p.d + (i < 2 ? group : group + 8) * 8 + in_group * 2 + (i & 1), d[i]);
}

namespace {

float value(u16 bits, bool is_fp16) { return is_fp16 ? fp16_value(bits) : float_of(static_cast<u32>(bits) << 16); }

void products() {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (int round = 0; round < 200; ++round) {
    const bool is_fp16 = round % 2 == 1;
    std::vector<u16> a(256), b(128);
    std::vector<float> c(128), d(128);
    for (u16& x : a) x = static_cast<u16>(is_fp16 ? pack_fp16(normal(random), 0) : pack_bf16(normal(random), 0));
    for (u16& x : b) x = static_cast<u16>(is_fp16 ? pack_fp16(normal(random), 0) : pack_bf16(normal(random), 0));
    for (float& x : c) x = normal(random);
    const Product product{a.data(), b.data(), c.data(), d.data(), is_fp16};
    SoftwareGPU::Options options;
    options.seed = static_cast<unsigned>(round);
    const SoftwareGPU::Result result = test::run("test_product", product, 0, options);
    EXPECT(result.ok(), "%s", result.text.c_str());
    for (int row = 0; row < 16; ++row) {
      for (int column = 0; column < 8; ++column) {
        double exact = static_cast<double>(c[row * 8 + column]), size = std::fabs(exact);
        for (int k = 0; k < 16; ++k) {
          const double term = static_cast<double>(value(a[row * 16 + k], is_fp16)) *
                                 static_cast<double>(value(b[k * 8 + column], is_fp16));
          exact += term, size += std::fabs(term);
        }
        const double error = std::fabs(static_cast<double>(d[row * 8 + column]) - exact);
        EXPECT(error <= 17 * 0x1p-23 * size, "row %d, column %d is off by %g", row, column, error);
      }
    }
  }
}

}  // namespace

int main() {
  test::step("mma multiplies and adds", products);
  return test::failures > 0;
}
