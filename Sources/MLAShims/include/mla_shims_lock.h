// A mutex that survives fork(). Those of the Swift runtime are of this kind, too: see
// swift_runtime.c.
//
// A thread that enters any of these locks passes one gate of the process first,
// and fork() closes the gate and waits until the others have left: whatever the
// locks protect is whole in the child, and no lock there is held by a thread
// that does not exist. Hence the rule: hold a lock for a few instructions, and
// never call the host under it.
#ifndef MLA_SHIMS_LOCK_H
#define MLA_SHIMS_LOCK_H

#include <stdint.h>

// `word` is 0 at first and stays where it is. Not recursive.
void mla_shim_lock(uint32_t *word);
void mla_shim_unlock(uint32_t *word);

#endif  // MLA_SHIMS_LOCK_H
