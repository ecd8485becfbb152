#define _GNU_SOURCE
#include "mla_shims_system.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

void mla_shim_futex_wait(uint32_t *word, uint32_t expected) {
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}

void mla_shim_futex_wake(uint32_t *word, int32_t count) {
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

int32_t mla_shim_thread_id(void) { return (int32_t)syscall(SYS_gettid); }

void mla_shim_name_thread(const char *name) { prctl(PR_SET_NAME, name); }

int mla_shim_open(const char *path, int flags) { return open(path, flags); }

int mla_shim_make_folder(const char *path) { return mkdir(path, 0700) ? errno : 0; }

int mla_shim_open_temporary(char *name) { return mkostemp(name, O_CLOEXEC); }

int32_t mla_shim_next_threads(int list, int32_t *threads, int32_t capacity) {
  // No entry is smaller than its fixed part.
  _Alignas(struct dirent) char entries[4096];
  const size_t bytes = offsetof(struct dirent, d_name) * (size_t)capacity;
  // Not readdir(), whose opendir() allocates. On 64-bit systems the kernel's entries are libc's.
  const long end =
      syscall(SYS_getdents64, list, entries, bytes < sizeof entries ? bytes : sizeof entries);
  int32_t count = 0;
  for (long next = 0; next < end;) {
    const struct dirent *entry = (const struct dirent *)(entries + next);
    next += entry->d_reclen;
    threads[count++] = (int32_t)strtol(entry->d_name, NULL, 10);
  }
  return count;
}

// The system call rather than libc's wrapper: cpu_set_t ends at 1024 processors.
void mla_shim_thread_processors(int32_t thread, mla_processor_set *set) {
  memset(set, 0, sizeof *set);
  syscall(SYS_sched_getaffinity, (long)thread, sizeof *set, set);
}

void mla_shim_set_thread_processors(int32_t thread, const mla_processor_set *set) {
  syscall(SYS_sched_setaffinity, (long)thread, sizeof *set, set);
}
