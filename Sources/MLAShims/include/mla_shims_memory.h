// Where memory comes from when the system has none.
//
// The Swift runtime ends the process when an allocation fails. What it asks for
// in the dynamic library therefore goes to the system first (MLAAllocation) and,
// where that refuses, to a reserve of fixed size; the thread is then marked as
// short of memory, and the call that it is in keeps nothing of what it made.
#ifndef MLA_SHIMS_MEMORY_H
#define MLA_SHIMS_MEMORY_H

#include <stddef.h>
#include <stdint.h>

// Memory of any size that its caller can do without: NULL if the system has none,
// never the reserve's. `alignment` is a power of two and a multiple of a pointer's
// size. For free().
void *mla_shim_try_allocate(size_t alignment, size_t bytes);

// A piece of the reserve, marking the calling thread as short; NULL if the reserve
// has none, or if the thread is in mla_shim_try_allocate().
void *mla_shim_reserve_take(size_t alignment, size_t bytes);
int mla_shim_reserve_owns(const void *memory);
// Of a piece that it owns.
size_t mla_shim_reserve_size(const void *piece);
void mla_shim_reserve_give_back(void *piece);
// Whether so much of it is in use that a call might not find what it needs.
int mla_shim_reserve_is_low(void);

// Whether the calling thread has taken from the reserve since the mark was set to 0.
int mla_shim_is_short(void);
// Returns the mark that there was.
int mla_shim_set_short(int is_short);

#endif  // MLA_SHIMS_MEMORY_H
