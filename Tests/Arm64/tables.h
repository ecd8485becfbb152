// The kernel tables that Tests/Arm64/Entries hands to C.
#ifndef TESTS_ARM64_TABLES_H
#define TESTS_ARM64_TABLES_H

#include "mla_kernel_abi.h"

void fill_portable_kernels(mla_kernel_table *table);
void fill_neon_kernels(mla_kernel_table *table);
void add_neon_bf16_kernels(mla_kernel_table *table);

// Weakest first; each takes the one before, and needs the bits of AT_HWCAP2.
static const struct {
  const char *name;
  void (*fill)(mla_kernel_table *);
  unsigned long hwcap2;
} tables[] = {{"portable", fill_portable_kernels, 0},
              {"neon", fill_neon_kernels, 0},
              {"neon_bf16", add_neon_bf16_kernels, 1ul << 14}};

#endif  // TESTS_ARM64_TABLES_H
