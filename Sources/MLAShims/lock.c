#include "mla_shims_lock.h"

#include <pthread.h>
#include <stdatomic.h>

#include "mla_shims_system.h"

static _Atomic uint32_t threads_inside;
static _Atomic uint32_t forks_under_way;

// Locks that this thread holds, and the gate as a whole while it forks. Initial-exec: the dynamic model allocates on a
// thread's first access and aborts the process when it cannot.
static _Thread_local uint32_t locks_held __attribute__((tls_model("initial-exec")));

static void leave_gate(void) {
  atomic_fetch_sub(&threads_inside, 1);
  if (atomic_load(&forks_under_way) != 0) {
    mla_shim_futex_wake((uint32_t *)&threads_inside, INT32_MAX);
  }
}

static void enter_gate(void) {
  for (;;) {
    atomic_fetch_add(&threads_inside, 1);
    uint32_t forks = atomic_load(&forks_under_way);
    if (forks == 0) return;
    leave_gate();
    mla_shim_futex_wait((uint32_t *)&forks_under_way, forks);
  }
}

static uint32_t own_share(void) { return locks_held > 0 ? 1 : 0; }

static void before_fork(void) {
  atomic_fetch_add(&forks_under_way, 1);
  uint32_t inside;
  while ((inside = atomic_load(&threads_inside)) > own_share()) {
    mla_shim_futex_wait((uint32_t *)&threads_inside, inside);
  }
  // Other handlers of this fork may call the library.
  locks_held++;
}

static void after_fork_in_parent(void) {
  locks_held--;
  atomic_fetch_sub(&forks_under_way, 1);
  mla_shim_futex_wake((uint32_t *)&forks_under_way, INT32_MAX);
}

static void after_fork_in_child(void) {
  locks_held--;
  atomic_store(&forks_under_way, 0);
  // A thread of the parent may have been counted while it was turning back.
  atomic_store(&threads_inside, own_share());
}

__attribute__((constructor)) static void watch_forks(void) {
  pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

// The word: 0 free, 1 held, 2 held and somebody sleeps.
void mla_shim_lock(uint32_t *word) {
  _Atomic uint32_t *state = (_Atomic uint32_t *)word;
  if (locks_held++ == 0) enter_gate();
  uint32_t expected = 0;
  if (atomic_compare_exchange_strong(state, &expected, 1)) return;
  while (atomic_exchange(state, 2) != 0) mla_shim_futex_wait(word, 2);
}

void mla_shim_unlock(uint32_t *word) {
  _Atomic uint32_t *state = (_Atomic uint32_t *)word;
  if (atomic_exchange(state, 0) == 2) mla_shim_futex_wake(word, 1);
  if (--locks_held == 0) leave_gate();
}
