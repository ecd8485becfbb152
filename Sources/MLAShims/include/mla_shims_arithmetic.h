// How a thread's floating-point arithmetic works: rounding, what becomes of subnormal
// numbers, which exceptions trap, and which have been noted.
#ifndef MLA_SHIMS_ARITHMETIC_H
#define MLA_SHIMS_ARITHMETIC_H

#include <stdint.h>

// The control and status registers; their bits are the architecture's.
typedef uint64_t mla_arithmetic;

// Of the calling thread. Functions of their own, so that no arithmetic on what is
// loaded behind a change moves before it.
mla_arithmetic mla_shim_arithmetic(void);
void mla_shim_set_arithmetic(mla_arithmetic arithmetic);

// Rounds to nearest even; nothing is flushed, traps or has been noted.
mla_arithmetic mla_shim_plain_arithmetic(void);

#endif  // MLA_SHIMS_ARITHMETIC_H
