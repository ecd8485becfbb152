// In the place of Sources/MLAShims/cpu.c: a CPU with AVX2 says that it has all that the
// kernel modules ask for, and in its name that this is a model.
#include <cpuid.h>
#include <stdbool.h>
#include <string.h>

#include "mla_shims_cpu.h"

static const char name[48] = "modelled instructions up to AMX";

static uint32_t bits(const int *numbers, int count) {
  uint32_t word = 0;
  for (int i = 0; i < count; i++) word |= 1u << numbers[i];
  return word;
}
#define BITS(...) bits((const int[]){__VA_ARGS__}, sizeof((const int[]){__VA_ARGS__}) / sizeof(int))

static mla_cpuid_registers own_cpuid(uint32_t leaf, uint32_t subleaf) {
  mla_cpuid_registers r = {0, 0, 0, 0};
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
  return r;
}

static uint64_t own_xgetbv0(void) {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return ((uint64_t)high << 32) | low;
}

// What the model is made of: FMA, OSXSAVE, F16C, AVX2, and registers that are saved.
static bool runs_the_model(void) {
  const uint32_t needed = BITS(12, 27, 29);
  return (own_cpuid(1, 0).ecx & needed) == needed && (own_cpuid(7, 0).ebx >> 5 & 1) &&
         (own_xgetbv0() & 0x6) == 0x6;
}

mla_cpuid_registers mla_shim_cpuid(uint32_t leaf, uint32_t subleaf) {
  mla_cpuid_registers r = own_cpuid(leaf, subleaf);
  if (!runs_the_model()) return r;
  // What Sources/MLACore/Runtime/X86CPU.swift asks for, bit by bit.
  if (leaf == 1) r.ecx |= BITS(22);
  if (leaf == 7 && subleaf == 0) {
    if (r.eax == 0) r.eax = 1;
    r.ebx |= BITS(3, 8, 16, 17, 21, 28, 30, 31);
    r.ecx |= BITS(1, 6, 8, 11, 12, 14);
    r.edx |= BITS(22, 24);
  }
  if (leaf == 7 && subleaf == 1) r.eax |= BITS(4, 5);
  if (leaf == 0x80000001u) r.ecx |= BITS(5);
  if (leaf >= 0x80000002u && leaf <= 0x80000004u) memcpy(&r, name + 16 * (leaf - 0x80000002u), 16);
  return r;
}

uint64_t mla_shim_xgetbv0(void) { return own_xgetbv0() | (runs_the_model() ? 0x600e6 : 0); }

int mla_shim_request_xstate(unsigned component) { return (void)component, runs_the_model(); }
int mla_shim_supports_xstate(unsigned component) { return (void)component, runs_the_model(); }
