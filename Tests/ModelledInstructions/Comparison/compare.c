// Each modelled instruction against the CPU's own, where it has it: all exponents, ties,
// subnormal numbers, NaN and infinities, random bits, under every rounding and flushing
// that MXCSR knows.
#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "instructions.h"

enum { ROUNDS = 20000 };

static uint64_t state = 1;
static uint32_t random_bits(void) {
  state += 0x9e3779b97f4a7c15u;
  uint64_t z = (state ^ state >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return (uint32_t)(z ^ z >> 31);
}

static uint32_t a_number(void) {
  // Halves and quarters of units in the last place of bf16 and fp16, and their neighbours.
  static const uint32_t mantissas[] = {0,        1,        0x7fffff, 0x400000, 0x3fffff, 0x400001,
                                       0x7fff,   0x8000,   0x8001,   0x17fff,  0x18000,  0x18001,
                                       0x7f8000, 0x7f7fff, 0x1000,   0xfff,    0x1001,   0x3000,
                                       0x7ff000, 0x200000, 0x600000, 0x10000,  0x7f0000};
  const uint32_t kind = random_bits(), sign = random_bits() << 31;
  const uint32_t exponent = (random_bits() & 255) << 23;
  const uint32_t near_one = (100 + random_bits() % 56) << 23;
  const uint32_t mantissa = mantissas[random_bits() % (sizeof mantissas / sizeof *mantissas)];
  switch (kind % 8) {
    case 0: return random_bits();
    case 1: return sign | (random_bits() & 1 ? 0x7f800000u : 0);
    case 2: return sign | (random_bits() & 0x7fffff);  // subnormal
    case 3: return sign | exponent | mantissa;
    case 4: return sign | near_one | mantissa;
    case 5: return sign | near_one | (random_bits() & 0x7fffff);
    case 6: return sign | near_one | (random_bits() & 0x7f0000);  // of bf16
    default: {
      // Small integers, halves of them and neighbours.
      const float number = (float)(int32_t)(random_bits() % 1200 - 600) * 0.5f;
      uint32_t bits;
      memcpy(&bits, &number, sizeof bits);
      return bits + random_bits() % 3 - 1;
    }
  }
}

// Whole numbers of bf16 as well as fp32: what one sees as a tie, the other as a pair.
static void fill(uint32_t row[16]) {
  const bool pairs = random_bits() & 1;
  for (int i = 0; i < 16; i++) row[i] = pairs ? a_number() >> 16 | (a_number() & 0xffff0000u) : a_number();
}

static void show(const char *name, const uint32_t *row) {
  printf("   %-9s", name);
  for (int i = 0; i < 16; i++) printf(" %08x", row[i]);
  printf("\n");
}

static bool has(int needs) {
  if (!__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512dq")) return false;
  if (!__builtin_cpu_supports("avx512vl")) return false;
  if (needs >= AVX512_BF16 && !__builtin_cpu_supports("avx512bf16")) return false;
  const long request_permission = 0x1023, tile_data = 18;
  return needs < AMX || (__builtin_cpu_supports("amx-bf16") &&
                         syscall(SYS_arch_prctl, request_permission, tile_data) == 0);
}

static bool same(const instruction *real, const instruction *modelled, unsigned control) {
  for (int round = 0; round < ROUNDS; round++) {
    uint32_t operands[3][16], expected[16] = {0}, found[16] = {0};
    for (int i = 0; i < 3; i++) fill(operands[i]);
    const unsigned callers = _mm_getcsr();
    _mm_setcsr(control);
    real->run(operands[0], operands[1], operands[2], expected);
    modelled->run(operands[0], operands[1], operands[2], found);
    const unsigned left = _mm_getcsr();
    _mm_setcsr(callers);
    if (memcmp(expected, found, sizeof found) == 0 && (left & ~0x3fu) == (control & ~0x3fu)) continue;
    printf("not ok %s, MXCSR %04x, then %04x\n", real->name, control, left);
    show("a", operands[0]), show("b", operands[1]), show("c", operands[2]);
    show("CPU", expected), show("model", found);
    return false;
  }
  return true;
}

int main(void) {
  // All exceptions masked: as it is; flushing results, operands, both; rounding down, up, to zero.
  static const unsigned controls[] = {0x1f80, 0x9f80, 0x1fc0, 0x9fc0, 0x3f80, 0x5f80, 0x7f80, 0xffc0};
  int failed = 0;
  for (int i = 0; real_instructions[i].name; i++) {
    const instruction *real = &real_instructions[i];
    if (!has(real->needs)) {
      printf("skipped %s: this CPU has it not\n", real->name);
      continue;
    }
    bool good = true;
    for (size_t k = 0; good && k < sizeof controls / sizeof *controls; k++)
      good = same(real, &modelled_instructions[i], controls[k]);
    if (good) printf("ok %s\n", real->name);
    failed += !good;
  }
  return failed != 0;
}
