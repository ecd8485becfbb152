// What Swift has no spelling for. Instructions, one inline function each: a function is
// one instruction, or the handful of shuffles that a vector needs where an instruction
// set has no single one; what is visible depends on the module's -march, a kernel module
// of a weaker instruction set does not see the stronger one's functions. System calls, and
// a thread's own words. No maths and no policy lives here, but for what the Swift runtime
// itself stands on: its locks, the gate that they pass and fork() closes (lock.c,
// swift_runtime.c, process.c), and the memory that it gets where there is none (memory.c).
#ifndef MLA_SHIMS_H
#define MLA_SHIMS_H

#include "mla_shims_amx.h"
#include "mla_shims_arithmetic.h"
#include "mla_shims_calls.h"
#include "mla_shims_cpu.h"
#include "mla_shims_lock.h"
#include "mla_shims_memory.h"
#include "mla_shims_system.h"
#include "mla_shims_thread.h"
#include "mla_shims_vector.h"

#endif  // MLA_SHIMS_H
