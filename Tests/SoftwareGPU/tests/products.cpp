// wgmma (PTX ISA, "Asynchronous warpgroup-level matrix instructions"): operands are laid out
// and fragments taken apart a second time, as the manual's figures have them.
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "support.hpp"

namespace {

using namespace test;

constexpr Arrival arrivals[] = {Arrival::early, Arrival::late, Arrival::random};
constexpr int depth = 64, a_bytes = 64 * 128, b_at = a_bytes + 1024;

enum class Fault_of {
  nothing,
  fence,
  second_fence,
  wait,
  commit,
  async_fence,
  overwritten,
  overwritten_after_wait,
  group
};

struct Problem {
  bool is_fp16 = false, adds = true;
  Fault_of fault = Fault_of::nothing;
  /// a[row][k], b[n][k], c[row][n].
  u16 a[64][depth] = {}, b[256][depth] = {};
  float c[64][256] = {};
  mutable float d[64][256] = {};
};

u16 bits_in(float x, bool is_fp16) { return static_cast<u16>(is_fp16 ? pack_fp16(x, 0) : pack_bf16(x, 0)); }
double value(u16 bits, bool is_fp16) {
  return static_cast<double>(is_fp16 ? fp16_value(bits) : float_of(static_cast<u32>(bits) << 16));
}

/// Whole numbers: exact, in any order.
void fill(Problem& p, std::mt19937& random) {
  const auto number = [&] { return static_cast<float>(static_cast<int>(random() % 33) - 16); };
  for (auto& row : p.a)
    for (u16& x : row) x = bits_in(number(), p.is_fp16);
  for (auto& row : p.b)
    for (u16& x : row) x = bits_in(number(), p.is_fp16);
  for (auto& row : p.c)
    for (float& x : row) x = number();
}

u64 descriptor(u32 address, u32 leading, u32 stride) {
  return u64{address >> 4} | u64{leading >> 4} << 16 | u64{stride >> 4} << 32 | u64{1} << 62;
}

/// Rows of 128 bytes, of which 16 bytes lie by the row's number.
int place(int row, int column) { return row * 128 + ((column / 8) ^ (row % 8)) * 16 + column % 8 * 2; }

template <int columns>
void lay_out(const Problem& p, unsigned char* shared, bool is_b_transposed) {
  for (int i = thread_id(); i < 64 * depth; i += 128)
    store_shared<u16>(shared + place(i / depth, i % depth), p.a[i / depth][i % depth]);
  for (int i = thread_id(); i < columns * depth; i += 128) {
    const int n = i / depth, k = i % depth;
    const int at = is_b_transposed ? n / 64 * depth * 128 + place(k, n % 64) : place(n, k);
    store_shared<u16>(shared + b_at + at, p.b[n][k]);
  }
  if (p.fault != Fault_of::async_fence) fence_async();
  block_barrier();
}

int row_of(int i) { return thread_id() / 32 * 16 + lane_id() / 4 + 8 * (i / 2 % 2); }
int column_of(int i) { return i / 4 * 8 + lane_id() % 4 * 2 + i % 2; }

template <bool is_fp16, int columns, bool is_of_registers>
void issue(const Problem& p, const unsigned char* shared, float (&d)[columns / 8][4]) {
  const u32 a_tile = shared_address(shared), b_tile = shared_address(shared) + b_at;
  for (int k = 0; k < depth; k += 16) {
    if constexpr (is_of_registers) {
      u32 a[4];
      for (int i = 0; i < 4; ++i) {
        const u16* pair =
            &p.a[thread_id() / 32 * 16 + lane_id() / 4 + 8 * (i % 2)][k + lane_id() % 4 * 2 + 8 * (i / 2)];
        a[i] = pair[0] | static_cast<u32>(pair[1]) << 16;
      }
      product_of_registers<is_fp16>(d, a, descriptor(b_tile + static_cast<u32>(k) * 128, depth * 128, 1024));
    } else {
      const u32 step = static_cast<u32>(2 * k), other = p.fault == Fault_of::group && thread_id() / 32 == 2 ? 32 : 0;
      product<is_fp16>(d, descriptor(a_tile + step, 16, 1024), descriptor(b_tile + (step ^ other), 16, 1024),
                       p.adds || k > 0);
    }
  }
}

template <bool is_fp16, int columns, bool is_of_registers>
void multiply(const Problem& p) {
  SHARED_MEMORY(shared);
  lay_out<columns>(p, shared, is_of_registers);
  float d[columns / 8][4];
  for (int i = 0; i < columns / 2; ++i) d[i / 4][i % 4] = p.c[row_of(i)][column_of(i)];
  if (p.fault != Fault_of::fence) products_fence();
  issue<is_fp16, columns, is_of_registers>(p, shared, d);
  if (p.fault != Fault_of::commit) products_commit();
  if (p.fault == Fault_of::overwritten) block_barrier();
  if (p.fault == Fault_of::overwritten && thread_id() == 5) store_shared<u16>(shared + b_at + place(7, 33), 0);
  if (p.fault != Fault_of::wait) products_wait<0>();
  if (p.fault == Fault_of::second_fence) issue<is_fp16, columns, is_of_registers>(p, shared, d);
  // That another warp's have been carried out nobody has said.
  if (p.fault == Fault_of::overwritten_after_wait && thread_id() == 5)
    store_shared<u16>(shared + b_at + place(7, 33), 0);
  for (int i = 0; i < columns / 2; ++i) p.d[row_of(i)][column_of(i)] = d[i / 4][i % 4];
}

template <bool is_fp16, int columns, bool is_of_registers>
void check(std::mt19937& random, bool adds) {
  static Problem p;
  p.is_fp16 = is_fp16, p.adds = adds;
  fill(p, random);
  for (const Arrival arrival : arrivals) {
    EXPECT_RUNS(run(p, {with(random(), arrival), 128, {}, 64 * 1024}, multiply<is_fp16, columns, is_of_registers>));
    int wrong = 0;
    for (int row = 0; row < 64; ++row) {
      for (int n = 0; n < columns; ++n) {
        double sum = adds ? static_cast<double>(p.c[row][n]) : 0;
        for (int k = 0; k < depth; ++k) sum += value(p.a[row][k], is_fp16) * value(p.b[n][k], is_fp16);
        wrong += static_cast<double>(p.d[row][n]) != sum;
      }
    }
    EXPECT(wrong == 0, "%d of %d numbers", wrong, 64 * columns);
  }
}

void products_of_shared_memory() {
  std::mt19937 random(1);
  for (const bool adds : {true, false}) {
    check<false, 8, false>(random, adds);
    check<false, 64, false>(random, adds);
    check<true, 128, false>(random, adds);
    check<false, 256, false>(random, adds);
  }
}

void of_registers() {
  std::mt19937 random(2);
  check<false, 64, true>(random, true);
  check<true, 128, true>(random, true);
  check<false, 256, true>(random, true);
}

void rules_of_products() {
  std::mt19937 random(3);
  static Problem p;
  fill(p, random);
  const auto expect = [&](Fault_of fault, const char* words) {
    p.fault = fault;
    for (unsigned seed = 0; seed < 6; ++seed)
      EXPECT_FAULT(run(p, {with(seed, arrivals[seed % 3]), 128, {}, 64 * 1024}, multiply<false, 64, false>),
                   illegal_instruction, words);
  };
  expect(Fault_of::fence, "without wgmma.fence");
  expect(Fault_of::second_fence, "without wgmma.fence");
  expect(Fault_of::async_fence, "without fence.proxy.async");
  expect(Fault_of::overwritten, "still read");
  expect(Fault_of::overwritten_after_wait, "");
  expect(Fault_of::group, "have other products");
  for (const Fault_of fault : {Fault_of::wait, Fault_of::commit}) {
    p.fault = fault;
    EXPECT_RUNS(run(p, {with(1), 128, {}, 64 * 1024}, multiply<false, 64, false>));
    EXPECT(std::isnan(p.d[3][3]), "sums that were not waited for");
  }
}

/// What one warp lays out, all others' products must know of.
void operands_are_handed_over() {
  struct Flag {
    mutable bool is_up;
  };
  for (unsigned seed = 0; seed < 6; ++seed) {
    EXPECT_FAULT(run(Flag{false}, {with(seed), 128, {}, 64 * 1024},
                     [](const Flag& flag) {
                       SHARED_MEMORY(shared);
                       for (int i = thread_id(); i < (b_at + 64 * 128) / 16 && thread_id() < 32; i += 32)
                         store_shared<u64>(shared + 16 * i, 0);
                       fence_async();
                       warp_barrier();
                       if (thread_id() == 0) flag.is_up = true;
                       // No barrier, as far as the machine knows.
                       while (thread_id() >= 32 && !flag.is_up) shuffle_xor(0, 1);
                       float d[8][4] = {};
                       products_fence();
                       product<false>(d, descriptor(shared_address(shared), 16, 1024),
                                      descriptor(shared_address(shared) + b_at, 16, 1024), false);
                       products_commit();
                       products_wait<0>();
                     }),
                 illegal_instruction, "race: touches");
  }
}

/// Seen by a test that changes operands behind the machine's back.
void read_at_any_time() {
  std::mt19937 random(6);
  static Problem p;
  fill(p, random);
  int before = 0, after = 0;
  for (unsigned seed = 0; seed < 40; ++seed) {
    const Arrival arrival = arrivals[seed % 3];
    EXPECT_RUNS(run(p, {with(seed, arrival), 128, {}, 64 * 1024}, [](const Problem& q) {
      SHARED_MEMORY(shared);
      lay_out<64>(q, shared, false);
      float d[8][4] = {};
      products_fence();
      issue<false, 64, false>(q, shared, d);
      products_commit();
      block_barrier();
      if (thread_id() == 0) std::memset(shared, 0, a_bytes);
      block_barrier();
      products_wait<0>();
      for (int i = 0; i < 32; ++i) q.d[row_of(i)][column_of(i)] = d[i / 4][i % 4];
    }));
    bool is_zero = true;
    for (int i = 0; i < 64; ++i) is_zero = is_zero && p.d[i][i] == 0;
    if (arrival == Arrival::early) EXPECT(!is_zero, "early");
    if (arrival == Arrival::late) EXPECT(is_zero, "late");
    if (arrival == Arrival::random) (is_zero ? after : before) += 1;
  }
  EXPECT(before + after == 13 && before > 0, "%d before, %d after", before, after);
}

/// A group that may still be under way is; one that was waited for has come.
void groups() {
  std::mt19937 random(4);
  static Problem p;
  p = Problem{};
  fill(p, random);
  for (const Arrival arrival : arrivals) {
    EXPECT_RUNS(run(p, {with(1, arrival), 128, {}, 64 * 1024}, [](const Problem& q) {
      SHARED_MEMORY(shared);
      lay_out<64>(q, shared, false);
      float first[8][4] = {}, second[8][4] = {};
      products_fence();
      issue<false, 64, false>(q, shared, first);
      products_commit();
      issue<false, 64, false>(q, shared, second);
      products_commit();
      products_wait<1>();
      float* seen = q.d[thread_id() / 2] + thread_id() % 2 * 3;
      seen[0] = first[0][0], seen[1] = second[0][0];
      products_wait<0>();
      seen[2] = second[0][0];
    }));
    EXPECT(!std::isnan(p.d[9][0]) && std::isnan(p.d[9][1]) && p.d[9][2] == p.d[9][0], "%g",
           static_cast<double>(p.d[9][0]));
  }
}

/// Operands that are read late: a copy over them must wait until all warps have read.
template <bool is_told>
void hand_over(const Problem& p) {
  SHARED_MEMORY(shared);
  u64* read = reinterpret_cast<u64*>(shared + b_at - 1024);
  lay_out<64>(p, shared, false);
  if (thread_id() == 0) mbarrier_init(read, 4);
  block_barrier();
  float d[8][4] = {};
  products_fence();
  issue<false, 64, false>(p, shared, d);
  products_commit();
  products_wait<0>();
  if (lane_id() == 0) mbarrier_arrive(read);
  if (thread_id() == 64 && is_told) mbarrier_wait(read, 0);
  if (thread_id() == 64) store_shared<u16>(shared + b_at, 0);
}

void operands_are_released() {
  std::mt19937 random(5);
  static Problem p;
  fill(p, random);
  for (unsigned seed = 0; seed < 9; ++seed) {
    const Launch how{with(seed, arrivals[seed % 3]), 128, {}, 64 * 1024};
    EXPECT_RUNS(run(p, how, hand_over<true>));
    EXPECT_FAULT(run(p, how, hand_over<false>), illegal_instruction, "");
  }
}

}  // namespace

void test::products() {
  step("wgmma of shared memory", products_of_shared_memory);
  step("wgmma of registers and what is transposed", of_registers);
  step("wgmma: misuse is a fault", rules_of_products);
  step("wgmma: operands must be known", operands_are_handed_over);
  step("wgmma: operands are read at any time", read_at_any_time);
  step("wgmma: groups are waited for in order", groups);
  step("wgmma: operands are free when all warps have read them", operands_are_released);
}
