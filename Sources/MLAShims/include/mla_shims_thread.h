// What the library keeps of a thread.
#ifndef MLA_SHIMS_THREAD_H
#define MLA_SHIMS_THREAD_H

#include <stddef.h>
#include <stdint.h>

#include "mla_shims_arithmetic.h"

#pragma clang assume_nonnull begin

// A message in memory of so many bytes.
typedef struct mla_message {
  char *_Nullable text;
  size_t capacity;
} mla_message;

// What is known of a call of a public entry, for counts and for those who want to be told
// of it; what is not known is 0.
typedef struct mla_call {
  int32_t kernel;
  int32_t form;
  int32_t dtype;
  int32_t device;
  int32_t threads;
  int64_t requests;
  int64_t tokens;
  int64_t keys;
  int64_t heads;
  int64_t qk_head_dim;
  int64_t v_head_dim;
  const char *_Nullable backend;
} mla_call;

typedef struct mla_thread {
  // Whether it is in the library, and what its arithmetic was when it came.
  int32_t is_inside;
  mla_arithmetic callers_arithmetic;
  // The parallel loops and the calls of a log callback that it is inside of.
  int32_t loops;
  int32_t callbacks;
  mla_message last_error;
  // The innermost call that it is in.
  mla_call call;
} mla_thread;

// The calling thread's own, all zeros at first.
mla_thread *mla_shim_thread(void);

#pragma clang assume_nonnull end

#endif  // MLA_SHIMS_THREAD_H
