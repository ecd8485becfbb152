#include "mla_shims_memory.h"

#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "mla_shims_lock.h"

// Free or in use; what it holds follows.
typedef struct piece {
  // This header's included.
  size_t bytes;
  // Of a free one: the next by address.
  struct piece *next;
} piece;

enum {
  unit = sizeof(piece),
  // Never touched where memory is not short, so it costs address space alone.
  reserve_bytes = 8 << 20,
  // What is kept for the process's life when every allocation of each first use is
  // refused takes a fraction of this; a call takes less than the rest.
  low_bytes = reserve_bytes / 2,
};
_Static_assert(unit == 16, "pieces are aligned as malloc() aligns");

static alignas(64) unsigned char reserve[reserve_bytes];
static piece *free_pieces;
static int is_set_up;
static _Atomic size_t taken_bytes;
// Also keeps the pieces whole in a forked child.
static uint32_t lock;

// Initial-exec: see lock.c.
static _Thread_local int is_short __attribute__((tls_model("initial-exec")));
static _Thread_local int can_do_without __attribute__((tls_model("initial-exec")));

void *mla_shim_try_allocate(size_t alignment, size_t bytes) {
  void *memory = NULL;
  can_do_without++;
  int status = posix_memalign(&memory, alignment, bytes);
  can_do_without--;
  return status == 0 ? memory : NULL;
}

int mla_shim_is_short(void) { return is_short; }

int mla_shim_set_short(int now) {
  int before = is_short;
  is_short = now;
  return before;
}

int mla_shim_reserve_owns(const void *memory) {
  return (uintptr_t)memory - (uintptr_t)reserve < reserve_bytes;
}

int mla_shim_reserve_is_low(void) {
  return atomic_load_explicit(&taken_bytes, memory_order_relaxed) > low_bytes;
}

static piece *header_of(const void *memory) { return (piece *)memory - 1; }

size_t mla_shim_reserve_size(const void *memory) { return header_of(memory)->bytes - unit; }

static piece *after(piece *of, size_t bytes) { return (piece *)((unsigned char *)of + bytes); }

// Where in a free piece one of `bytes` would begin, so that what it holds is
// aligned; NULL if it does not fit. Whole units lie before it and behind it.
static piece *place_in(piece *whole, size_t alignment, size_t bytes) {
  uintptr_t begin = (uintptr_t)whole + unit;
  uintptr_t held = (begin + alignment - 1) & ~(uintptr_t)(alignment - 1);
  size_t skipped = held - begin;
  if (skipped > whole->bytes || whole->bytes - skipped < bytes) return NULL;
  return after(whole, skipped);
}

static piece *take(size_t alignment, size_t bytes) {
  if (!is_set_up) {
    is_set_up = 1;
    free_pieces = (piece *)reserve;
    *free_pieces = (piece){reserve_bytes, NULL};
  }
  for (piece **link = &free_pieces; *link; link = &(*link)->next) {
    piece *whole = *link;
    piece *taken = place_in(whole, alignment, bytes);
    if (!taken) continue;
    size_t before = (size_t)((unsigned char *)taken - (unsigned char *)whole);
    size_t behind = whole->bytes - before - bytes;
    piece *next = whole->next;
    if (behind > 0) {
      piece *rest = after(taken, bytes);
      *rest = (piece){behind, next};
      next = rest;
    }
    if (before > 0) {
      *whole = (piece){before, next};
    } else {
      *link = next;
    }
    taken->bytes = bytes;
    return taken;
  }
  return NULL;
}

void *mla_shim_reserve_take(size_t alignment, size_t wanted) {
  if (can_do_without || wanted > reserve_bytes || alignment > reserve_bytes) return NULL;
  if (alignment < unit) alignment = unit;
  size_t bytes = (wanted + 2 * unit - 1) / unit * unit;
  // Of a size even where none is wanted: it must have an address of its own.
  if (bytes < 2 * unit) bytes = 2 * unit;
  mla_shim_lock(&lock);
  piece *taken = take(alignment, bytes);
  if (taken) atomic_fetch_add_explicit(&taken_bytes, bytes, memory_order_relaxed);
  mla_shim_unlock(&lock);
  if (!taken) return NULL;
  is_short = 1;
  return taken + 1;
}

// Joins it with the one behind it if they touch.
static void join(piece *one) {
  if (one->next != after(one, one->bytes)) return;
  one->bytes += one->next->bytes;
  one->next = one->next->next;
}

void mla_shim_reserve_give_back(void *memory) {
  piece *given = header_of(memory);
  mla_shim_lock(&lock);
  atomic_fetch_sub_explicit(&taken_bytes, given->bytes, memory_order_relaxed);
  piece *before = NULL;
  piece *behind = free_pieces;
  while (behind && behind < given) {
    before = behind;
    behind = behind->next;
  }
  given->next = behind;
  join(given);
  if (before) {
    before->next = given;
    join(before);
  } else {
    free_pieces = given;
  }
  mla_shim_unlock(&lock);
}
