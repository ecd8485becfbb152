#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mla_shims_lock.h"

// What the Swift runtime is linked with in place of parts of its own or of the system's;
// names that begin with __wrap_ are Package.swift's `replaced`. Hosts know
// nothing of Swift: to them the library is C, and what their environment says to Swift
// programs is not said to it.

// The names of Unicode's characters: none has one, which Swift hands on as nil.
intptr_t __wrap__swift_stdlib_getScalarName(uint32_t scalar, uint8_t *name, intptr_t capacity) {
  (void)scalar, (void)name, (void)capacity;
  return 0;
}

// The environment, whose SWIFT_* variables make the runtime print, verify, and install
// signal handlers.
static char *no_variables[] = {NULL};
char **__wrap_environ = no_variables;

// Its crash reporter, which installs handlers wherever it finds the toolchain's program.
// That these two are here keeps it out of the link: settings that say "off", and whether
// a frame is a thunk's.
const uint32_t _swift_backtraceSettings[22];
bool _swift_backtrace_isThunkFunction(const char *mangled_name) {
  (void)mangled_name;
  return false;
}

// Its locks. The runtime makes metadata, caches and lazy globals on first use, under
// locks that in a forked child stay held by a thread that is not there. All of them are
// locks of our own, which fork() waits for: a child finds everything made or not begun.
// The words lie where the runtime's zeroed objects have room for them.

// pthread_mutex_t: begins with a word of its own.
int __wrap_pthread_mutex_lock(void *mutex) {
  mla_shim_lock(mutex);
  return 0;
}
int __wrap_pthread_mutex_unlock(void *mutex) {
  mla_shim_unlock(mutex);
  return 0;
}

// A lazy global's token (swift::threading_impl::once_t): negative when made and nothing
// is left to do, not 0 when made.
typedef struct once_token {
  int32_t made;
  uint32_t lock;
} once_token;

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
// The sanitizer must see each look at what was made.
#define MADE 1
#endif
#endif
#ifndef MADE
#define MADE -1
#endif

// swift::threading_impl::once_slow(once_t &, void (*)(void *), void *).
void __wrap__ZN5swift14threading_impl9once_slowERNS0_6once_tEPFvPvES3_(
    once_token *token, void (*make)(void *), void *context) {
  mla_shim_lock(&token->lock);
  if (token->made == 0) {
    make(context);
    __atomic_store_n(&token->made, MADE, __ATOMIC_RELEASE);
  }
  mla_shim_unlock(&token->lock);
}

// The guard of a C++ function's static variable: its first byte says that it is made.
typedef struct static_guard {
  uint8_t made;
  uint32_t lock;
} static_guard;

int __wrap___cxa_guard_acquire(static_guard *guard) {
  mla_shim_lock(&guard->lock);
  if (guard->made == 0) return 1;
  mla_shim_unlock(&guard->lock);
  return 0;
}
void __wrap___cxa_guard_release(static_guard *guard) {
  __atomic_store_n(&guard->made, 1, __ATOMIC_RELEASE);
  mla_shim_unlock(&guard->lock);
}
