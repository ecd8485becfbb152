#include "mla_shims_calls.h"

#include <stdatomic.h>

// Each count by itself: a reader may see a call that another count lacks yet.
static struct {
  _Atomic(uint64_t) calls, failures, tokens, nanoseconds;
} counts[MLA_CALL_ENTRIES][MLA_CALL_KERNELS];

static void add(_Atomic(uint64_t) *count, uint64_t added) {
  if (added) atomic_fetch_add_explicit(count, added, memory_order_relaxed);
}

void mla_shim_count_call(int32_t entry, int32_t kernel, mla_call_counts added) {
  add(&counts[entry][kernel].calls, added.calls);
  add(&counts[entry][kernel].failures, added.failures);
  add(&counts[entry][kernel].tokens, added.tokens);
  add(&counts[entry][kernel].nanoseconds, added.nanoseconds);
}

mla_call_counts mla_shim_call_counts(int32_t entry, int32_t kernel) {
  return (mla_call_counts){
      .calls = atomic_load_explicit(&counts[entry][kernel].calls, memory_order_relaxed),
      .failures = atomic_load_explicit(&counts[entry][kernel].failures, memory_order_relaxed),
      .tokens = atomic_load_explicit(&counts[entry][kernel].tokens, memory_order_relaxed),
      .nanoseconds = atomic_load_explicit(&counts[entry][kernel].nanoseconds, memory_order_relaxed),
  };
}

void mla_shim_reset_call_counts(void) {
  for (int entry = 0; entry < MLA_CALL_ENTRIES; entry++) {
    for (int kernel = 0; kernel < MLA_CALL_KERNELS; kernel++) {
      atomic_store_explicit(&counts[entry][kernel].calls, 0, memory_order_relaxed);
      atomic_store_explicit(&counts[entry][kernel].failures, 0, memory_order_relaxed);
      atomic_store_explicit(&counts[entry][kernel].tokens, 0, memory_order_relaxed);
      atomic_store_explicit(&counts[entry][kernel].nanoseconds, 0, memory_order_relaxed);
    }
  }
}
