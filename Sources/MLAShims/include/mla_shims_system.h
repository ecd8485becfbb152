// System calls that have no function in libc, and what of a thread is kept in C.
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

// The parallel loops that the calling thread is inside of.
int32_t mla_shim_loop_depth(void);
void mla_shim_enter_loop(void);
void mla_shim_leave_loop(void);

// The log callbacks that the calling thread is inside of.
int32_t mla_shim_callback_depth(void);
void mla_shim_enter_callback(void);
void mla_shim_leave_callback(void);

// The calling thread's id, which is what the kernel's lists of threads have.
int32_t mla_shim_thread_id(void);
// Names the calling thread, a worker, for whoever looks at the process.
void mla_shim_name_worker(int32_t worker);

// Never waits; -1 if the file cannot be read. (Swift's open() brings others along.)
int mla_shim_open_to_read(const char *path);

// A set of processors wide enough for any kernel; bit i of word i / 64.
#define MLA_SHIM_PROCESSOR_WORDS 128
typedef struct mla_processor_set {
  uint64_t words[MLA_SHIM_PROCESSOR_WORDS];
} mla_processor_set;

// The processors that the calling thread may run on; empty if unknown.
void mla_shim_thread_processors(mla_processor_set *set);
// Those that any thread of the process may run on, but for some, in ascending order.
void mla_shim_process_processors(mla_processor_set *set, const int32_t *but, size_t count);
// `thread` 0: the calling one.
void mla_shim_set_thread_processors(int32_t thread, const mla_processor_set *set);

#endif  // MLA_SHIMS_SYSTEM_H
