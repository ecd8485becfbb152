// ldmatrix and mma against their definitions in the PTX ISA manual ("Matrix load
// instruction: ldmatrix", "Matrix Fragments for mma.m16n8k16"): which lane has what is
// written down a second time, as the manual's formulas have it.
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <set>
#include <vector>

#include "support.hpp"

namespace {

using namespace test;

struct Product {
  u16 a[16][16], b[16][8];
  float c[16][8];
  bool is_fp16;
  mutable float d[16][8];
};

void product_kernel(const Product& p) {
  const int group = lane_id() >> 2, in_group = lane_id() % 4;
  u32 a[4] = {}, b[2] = {};
  float d[4];
  for (int i = 0; i < 8; ++i) {
    const int row = (i < 2 || (4 <= i && i < 6)) ? group : group + 8;
    const int column = in_group * 2 + (i & 1) + (i < 4 ? 0 : 8);
    a[i / 2] |= static_cast<u32>(p.a[row][column]) << i % 2 * 16;
  }
  for (int i = 0; i < 4; ++i) {
    const int row = in_group * 2 + (i & 1) + (i < 2 ? 0 : 8);
    b[i / 2] |= static_cast<u32>(p.b[row][group]) << i % 2 * 16;
  }
  for (int i = 0; i < 4; ++i) d[i] = p.c[i < 2 ? group : group + 8][in_group * 2 + (i & 1)];
  if (p.is_fp16) {
    multiply_add_fp16(d, a, b[0], b[1]);
  } else {
    multiply_add_bf16(d, a, b[0], b[1]);
  }
  for (int i = 0; i < 4; ++i) p.d[i < 2 ? group : group + 8][in_group * 2 + (i & 1)] = d[i];
}

double value(u16 bits, bool is_fp16) {
  return static_cast<double>(is_fp16 ? fp16_value(bits) : float_of(static_cast<u32>(bits) << 16));
}

u16 bits_in(float x, bool is_fp16) { return static_cast<u16>(is_fp16 ? pack_fp16(x, 0) : pack_bf16(x, 0)); }

Product random_product(std::mt19937& random, bool is_fp16) {
  std::normal_distribution<float> normal;
  Product product{};
  product.is_fp16 = is_fp16;
  for (auto& row : product.a)
    for (u16& x : row) x = bits_in(normal(random), is_fp16);
  for (auto& row : product.b)
    for (u16& x : row) x = bits_in(normal(random), is_fp16);
  for (auto& row : product.c)
    for (float& x : row) x = normal(random);
  return product;
}

/// The exact sum, and that of its terms' sizes.
std::pair<double, double> sum_at(const Product& p, int row, int column) {
  double sum = static_cast<double>(p.c[row][column]), size = std::fabs(sum);
  for (int k = 0; k < 16; ++k) {
    const double term = value(p.a[row][k], p.is_fp16) * value(p.b[k][column], p.is_fp16);
    sum += term, size += std::fabs(term);
  }
  return {sum, size};
}

void random_products() {
  std::mt19937 random(1);
  for (unsigned round = 0; round < 200; ++round) {
    const Product p = random_product(random, round % 2 == 1);
    EXPECT_RUNS(run(p, {with(round)}, product_kernel));
    for (int row = 0; row < 16; ++row) {
      for (int column = 0; column < 8; ++column) {
        const auto [sum, size] = sum_at(p, row, column);
        const double error = std::fabs(static_cast<double>(p.d[row][column]) - sum);
        EXPECT(error <= 17 * 0x1p-23 * size, "row %d, column %d is off by %g", row, column, error);
      }
    }
  }
}

/// Sums that no order and no rounding changes: they tell every element apart.
void exact_products() {
  std::mt19937 random(2);
  for (unsigned round = 0; round < 20; ++round) {
    Product p{};
    p.is_fp16 = round % 2 == 1;
    for (auto& row : p.a)
      for (u16& x : row) x = bits_in(static_cast<float>(static_cast<int>(random() % 129) - 64), p.is_fp16);
    for (auto& row : p.b)
      for (u16& x : row) x = bits_in(static_cast<float>(static_cast<int>(random() % 129) - 64), p.is_fp16);
    EXPECT_RUNS(run(p, {with(round)}, product_kernel));
    for (int row = 0; row < 16; ++row)
      for (int column = 0; column < 8; ++column)
        EXPECT(static_cast<double>(p.d[row][column]) == sum_at(p, row, column).first, "row %d, column %d", row, column);
  }
}

/// "The accumulation order, rounding and handling of subnormal inputs are unspecified."
void unspecified_bits_vary() {
  std::mt19937 random(3);
  const Product p = random_product(random, false);
  std::set<std::vector<float>> results;
  for (unsigned seed = 0; seed < 20; ++seed) {
    EXPECT_RUNS(run(p, {with(seed)}, product_kernel));
    results.insert(std::vector<float>(&p.d[0][0], &p.d[0][0] + 128));
  }
  EXPECT(results.size() > 10, "%zu results of 20 seeds", results.size());

  Product small{};
  small.a[0][0] = 1, small.b[0][0] = bits_in(1, false);
  // Far above it 1 + 2^-24 of eight terms, which truncation loses and nearest may not.
  Product ties{};
  for (int k = 0; k < 16; ++k)
    ties.a[0][k] = bits_in(k == 0 ? 1.0f : 0x1.8p-24f, false), ties.b[k][0] = bits_in(1, false);
  std::set<float> subnormal, rounded;
  for (unsigned seed = 0; seed < 50; ++seed) {
    EXPECT_RUNS(run(small, {with(seed)}, product_kernel));
    subnormal.insert(small.d[0][0]);
    EXPECT_RUNS(run(ties, {with(seed)}, product_kernel));
    rounded.insert(ties.d[0][0]);
  }
  EXPECT(subnormal.size() == 2 && subnormal.count(0) == 1, "%zu", subnormal.size());
  EXPECT(rounded.size() > 3, "%zu results of 50 seeds", rounded.size());
}

void special_numbers() {
  const float infinite = std::numeric_limits<float>::infinity();
  for (const bool is_fp16 : {false, true}) {
    Product p{};
    p.is_fp16 = is_fp16;
    for (auto& row : p.b)
      for (u16& x : row) x = bits_in(1, is_fp16);
    p.a[0][3] = bits_in(infinite, is_fp16);
    p.a[1][4] = bits_in(-infinite, is_fp16);
    p.a[2][5] = bits_in(std::nanf(""), is_fp16);
    p.a[3][1] = bits_in(infinite, is_fp16), p.a[3][2] = bits_in(-infinite, is_fp16);
    p.a[4][6] = bits_in(0x1p-24f, is_fp16);
    p.a[5][7] = bits_in(-0x1.8p-16f, is_fp16);
    p.c[6][0] = -infinite;
    EXPECT_RUNS(run(p, {}, product_kernel));
    EXPECT(p.d[0][0] == infinite && p.d[1][7] == -infinite && p.d[6][0] == -infinite, "infinite sums");
    EXPECT(std::isnan(p.d[2][2]) && std::isnan(p.d[3][3]), "NaN");
    EXPECT(p.d[4][4] == 0x1p-24f && p.d[5][5] == -0x1.8p-16f, "%g: subnormal in fp16", static_cast<double>(p.d[4][4]));
  }
}

struct Matrices {
  u16 numbers[4][8][8];
  /// By lane and register.
  mutable u32 loaded[2][32][4];
};

void ldmatrix() {
  Matrices m{};
  u16 number = 0x4000;
  for (auto& matrix : m.numbers)
    for (auto& row : matrix)
      for (u16& x : row) x = number++;
  EXPECT_RUNS(run(m, {}, [](const Matrices& matrices) {
    SHARED_MEMORY(shared);
    // Rows are anywhere: here the last one first, in steps of 48 bytes.
    unsigned char* row = shared + (31 - lane_id()) * 48;
    for (int i = 0; i < 8; ++i) store_shared<u16>(row + 2 * i, matrices.numbers[lane_id() / 8][lane_id() % 8][i]);
    block_barrier();
    u32 fragment[4];
    load_matrix(fragment, row);
    std::memcpy(matrices.loaded[0][lane_id()], fragment, 16);
    load_matrix_transposed(fragment, row);
    std::memcpy(matrices.loaded[1][lane_id()], fragment, 16);
  }));
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const u16(&x)[8][8] = m.numbers[i];
      const int row = lane / 4, column = 2 * (lane % 4);
      EXPECT(m.loaded[0][lane][i] == (x[row][column] | static_cast<u32>(x[row][column + 1]) << 16), "lane %d", lane);
      EXPECT(m.loaded[1][lane][i] == (x[column][row] | static_cast<u32>(x[column + 1][row]) << 16), "lane %d", lane);
    }
  }
}

}  // namespace

void test::matrices() {
  step("mma sums to within fp32", random_products);
  step("mma has every element in its place", exact_products);
  step("mma leaves open what the manual does", unspecified_bits_vary);
  step("mma of numbers that are infinite, NaN, subnormal", special_numbers);
  step("ldmatrix, transposed or not", ldmatrix);
}
