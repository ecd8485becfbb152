#include "mla_shims_system.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

void mla_shim_futex_wait(uint32_t *word, uint32_t expected) {
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}

void mla_shim_futex_wake(uint32_t *word, int32_t count) {
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

// Initial-exec: see lock.c.
static _Thread_local int32_t loop_depth __attribute__((tls_model("initial-exec")));

int32_t mla_shim_loop_depth(void) { return loop_depth; }
void mla_shim_enter_loop(void) { loop_depth++; }
void mla_shim_leave_loop(void) { loop_depth--; }

static _Thread_local int32_t callback_depth __attribute__((tls_model("initial-exec")));

int32_t mla_shim_callback_depth(void) { return callback_depth; }
void mla_shim_enter_callback(void) { callback_depth++; }
void mla_shim_leave_callback(void) { callback_depth--; }

int32_t mla_shim_thread_id(void) { return (int32_t)syscall(SYS_gettid); }

void mla_shim_name_worker(int32_t worker) {
  char name[16];  // all that the kernel keeps
  snprintf(name, sizeof name, "mla-prefill/%d", (int)(worker % 1000));
  prctl(PR_SET_NAME, name);
}

// The system call rather than libc's wrapper: cpu_set_t ends at 1024 processors.
static void add_processors_of(long thread, mla_processor_set *set) {
  mla_processor_set own;
  memset(&own, 0, sizeof own);
  if (syscall(SYS_sched_getaffinity, thread, sizeof own, &own) <= 0) return;
  for (size_t i = 0; i < MLA_SHIM_PROCESSOR_WORDS; i++) set->words[i] |= own.words[i];
}

void mla_shim_thread_processors(mla_processor_set *set) {
  memset(set, 0, sizeof *set);
  add_processors_of(0, set);
}

int mla_shim_open_to_read(const char *path) {
  return open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
}

static int in_order(const void *a, const void *b) {
  const int32_t left = *(const int32_t *)a, right = *(const int32_t *)b;
  return (left > right) - (left < right);
}

void mla_shim_process_processors(mla_processor_set *set, const int32_t *but, size_t count) {
  mla_shim_thread_processors(set);
  char reader[16] = "";
  // Of another namespace than the process, /proc has other threads' ids.
  if (readlink("/proc/self", reader, sizeof reader - 1) < 0 || atoi(reader) != getpid()) return;
  // Not opendir(), which allocates. On 64-bit systems the kernel's entries are libc's.
  int threads = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (threads < 0) return;
  _Alignas(struct dirent) char entries[4096];
  long bytes;
  while ((bytes = syscall(SYS_getdents64, threads, entries, sizeof entries)) > 0) {
    for (const char *next = entries; next < entries + bytes;) {
      const struct dirent *entry = (const struct dirent *)next;
      next += entry->d_reclen;
      const int32_t thread = (int32_t)strtol(entry->d_name, NULL, 10);
      if (thread > 0 && !bsearch(&thread, but, count, sizeof thread, in_order)) {
        add_processors_of(thread, set);
      }
    }
  }
  close(threads);
}

void mla_shim_set_thread_processors(int32_t thread, const mla_processor_set *set) {
  syscall(SYS_sched_setaffinity, (long)thread, sizeof *set, set);
}
