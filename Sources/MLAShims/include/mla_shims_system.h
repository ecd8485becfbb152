// System calls that have no function in libc, or one that Swift cannot call.
#ifndef MLA_SHIMS_SYSTEM_H
#define MLA_SHIMS_SYSTEM_H

#include <stddef.h>
#include <stdint.h>

// Sleeps while *word is `expected`; may return early.
void mla_shim_futex_wait(uint32_t *word, uint32_t expected);
void mla_shim_futex_wake(uint32_t *word, int32_t count);

// Tells the processor that the thread waits for another one's store.
static inline void mla_shim_spin_hint(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// Tells a process from those it was forked from; never 0.
uint32_t mla_shim_process_number(void);

// The calling thread's id, which is what the kernel's lists of threads have.
int32_t mla_shim_thread_id(void);
// For whoever looks at the process; 15 characters are kept.
void mla_shim_name_thread(const char *name);

// open(), with which Swift's would bring others along.
int mla_shim_open(const char *path, int flags);
// mkdir() for its owner alone; 0, or what errno says, Swift's own bringing others along.
int mla_shim_make_folder(const char *path);
// A new file of a name that ends in XXXXXX, which become what no other file has; programs
// that are started do not get it.
int mla_shim_open_temporary(char *name);
// Reads on in /proc/self/task, open as `list`: ids of threads, and 0 for what is none.
// Returns how many, 0 at the end. Allocates nothing.
int32_t mla_shim_next_threads(int list, int32_t *threads, int32_t capacity);

// A set of processors wide enough for any kernel; bit i of word i / 64.
#define MLA_SHIM_PROCESSOR_WORDS 128
typedef struct mla_processor_set {
  uint64_t words[MLA_SHIM_PROCESSOR_WORDS];
} mla_processor_set;

// Those that a thread, 0 for the calling one, may run on; none if unknown.
void mla_shim_thread_processors(int32_t thread, mla_processor_set *set);
void mla_shim_set_thread_processors(int32_t thread, const mla_processor_set *set);

#endif  // MLA_SHIMS_SYSTEM_H
