// What calls of public entries have done, summed up over the process.
#ifndef MLA_SHIMS_CALLS_H
#define MLA_SHIMS_CALLS_H

#include <stdint.h>

#pragma clang assume_nonnull begin

enum { MLA_CALL_ENTRIES = 9, MLA_CALL_KERNELS = 11 };

typedef struct mla_call_counts {
  uint64_t calls;
  uint64_t failures;
  uint64_t tokens;
  uint64_t nanoseconds;
} mla_call_counts;

// Adds to the counts of an entry and a kernel, each below its number above. Takes no lock.
void mla_shim_count_call(int32_t entry, int32_t kernel, mla_call_counts added);
mla_call_counts mla_shim_call_counts(int32_t entry, int32_t kernel);
void mla_shim_reset_call_counts(void);

#pragma clang assume_nonnull end

#endif  // MLA_SHIMS_CALLS_H
