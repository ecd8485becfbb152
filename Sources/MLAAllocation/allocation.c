// What the linker calls in place of malloc() and its kin, for the code of this library
// and the Swift runtime in it (see Package.swift): the system's, and the reserve where
// the system refuses.

#include <stdint.h>
#include <string.h>

#include "mla_shims_memory.h"

// <errno.h> and <stdlib.h> would bring declarations that the linker's names hide.
enum { no_memory = 12 /* ENOMEM */, default_alignment = 16 };

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *memory, size_t bytes);
int __real_posix_memalign(void **memory, size_t alignment, size_t bytes);
size_t __real_malloc_usable_size(void *memory);
void __real_free(void *memory);

void *__wrap_malloc(size_t bytes) {
  void *memory = __real_malloc(bytes);
  return memory ? memory : mla_shim_reserve_take(default_alignment, bytes);
}

void *__wrap_calloc(size_t count, size_t bytes) {
  void *memory = __real_calloc(count, bytes);
  size_t product;
  if (memory || __builtin_mul_overflow(count, bytes, &product)) return memory;
  memory = mla_shim_reserve_take(default_alignment, product);
  return memory ? memset(memory, 0, product) : NULL;
}

int __wrap_posix_memalign(void **memory, size_t alignment, size_t bytes) {
  int status = __real_posix_memalign(memory, alignment, bytes);
  if (status != no_memory) return status;
  void *piece = mla_shim_reserve_take(alignment, bytes);
  if (!piece) return status;
  *memory = piece;
  return 0;
}

size_t __wrap_malloc_usable_size(void *memory) {
  return mla_shim_reserve_owns(memory) ? mla_shim_reserve_size(memory)
                                       : __real_malloc_usable_size(memory);
}

void __wrap_free(void *memory) {
  if (mla_shim_reserve_owns(memory)) return mla_shim_reserve_give_back(memory);
  __real_free(memory);
}

static void *moved(void *memory, size_t old_bytes, size_t bytes) {
  void *larger = __wrap_malloc(bytes);
  if (!larger) return NULL;
  memcpy(larger, memory, old_bytes < bytes ? old_bytes : bytes);
  __wrap_free(memory);
  return larger;
}

void *__wrap_realloc(void *memory, size_t bytes) {
  if (mla_shim_reserve_owns(memory)) return moved(memory, mla_shim_reserve_size(memory), bytes);
  void *larger = __real_realloc(memory, bytes);
  if (larger || bytes == 0) return larger;
  return memory ? moved(memory, __real_malloc_usable_size(memory), bytes) : __wrap_malloc(bytes);
}

// C++: operator new, whose failure is an exception, by way of the one that returns
// NULL, and operator delete. A host may have replaced them, so they are not malloc().
// Names as the compiler mangles them for 64-bit systems.
typedef const char *nothrow;
void *system_new(size_t bytes, nothrow) __asm__("_ZnwmRKSt9nothrow_t");
void *system_aligned_new(size_t bytes, size_t alignment,
                         nothrow) __asm__("_ZnwmSt11align_val_tRKSt9nothrow_t");
void __real__ZdlPv(void *memory);
void __real__ZdlPvm(void *memory, size_t bytes);
void __real__ZdlPvSt11align_val_t(void *memory, size_t alignment);
void __real__ZdlPvmSt11align_val_t(void *memory, size_t bytes, size_t alignment);

void *__wrap__Znwm(size_t bytes) {
  void *memory = system_new(bytes, "");
  return memory ? memory : mla_shim_reserve_take(default_alignment, bytes);
}

void *__wrap__ZnwmSt11align_val_t(size_t bytes, size_t alignment) {
  void *memory = system_aligned_new(bytes, alignment, "");
  return memory ? memory : mla_shim_reserve_take(alignment, bytes);
}

void __wrap__ZdlPv(void *memory) {
  if (mla_shim_reserve_owns(memory)) return mla_shim_reserve_give_back(memory);
  __real__ZdlPv(memory);
}

void __wrap__ZdlPvm(void *memory, size_t bytes) {
  if (mla_shim_reserve_owns(memory)) return mla_shim_reserve_give_back(memory);
  __real__ZdlPvm(memory, bytes);
}

void __wrap__ZdlPvSt11align_val_t(void *memory, size_t alignment) {
  if (mla_shim_reserve_owns(memory)) return mla_shim_reserve_give_back(memory);
  __real__ZdlPvSt11align_val_t(memory, alignment);
}

void __wrap__ZdlPvmSt11align_val_t(void *memory, size_t bytes, size_t alignment) {
  if (mla_shim_reserve_owns(memory)) return mla_shim_reserve_give_back(memory);
  __real__ZdlPvmSt11align_val_t(memory, bytes, alignment);
}
