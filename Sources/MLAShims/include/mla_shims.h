// Instructions that Swift has no spelling for, one inline function each. No
// maths and no policy lives here: a function is one instruction, or the handful
// of shuffles that a vector needs where an instruction set has no single one.
//
// What is visible depends on the module's -march: a kernel module of a weaker
// instruction set does not see the stronger one's functions.
#ifndef MLA_SHIMS_H
#define MLA_SHIMS_H

#include "mla_shims_amx.h"
#include "mla_shims_arithmetic.h"
#include "mla_shims_cpu.h"
#include "mla_shims_last_error.h"
#include "mla_shims_lock.h"
#include "mla_shims_memory.h"
#include "mla_shims_system.h"
#include "mla_shims_vector.h"

#endif  // MLA_SHIMS_H
