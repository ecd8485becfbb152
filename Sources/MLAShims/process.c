#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "mla_shims_system.h"

// The process's number, 0 where it has none yet. It lies in memory that a child finds
// zeroed, however it was made: the process id does not tell apart a parent and a child
// that are both the first of their namespaces.
static _Atomic uint32_t inherited;
static _Atomic uint32_t *number = &inherited;
static _Atomic uint32_t last;

static void forget(void) { atomic_store(number, 0); }

__attribute__((constructor)) static void watch(void) {
  const size_t bytes = (size_t)sysconf(_SC_PAGESIZE);
  void *page = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page != MAP_FAILED && madvise(page, bytes, MADV_WIPEONFORK) == 0) {
    number = page;
  } else if (page != MAP_FAILED) {
    munmap(page, bytes);
  }
  // For fork() on kernels that cannot, or say that they can.
  pthread_atfork(NULL, NULL, forget);
}

uint32_t mla_shim_process_number(void) {
  uint32_t known = atomic_load(number);
  if (known != 0) return known;
  // More than any that is in use among its ancestors.
  const uint32_t own = atomic_fetch_add(&last, 1) + 1;
  return atomic_compare_exchange_strong(number, &known, own) ? own : known;
}
