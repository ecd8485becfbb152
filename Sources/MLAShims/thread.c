#include "mla_shims_thread.h"

// Initial-exec: see lock.c.
static _Thread_local mla_thread thread __attribute__((tls_model("initial-exec")));

mla_thread *mla_shim_thread(void) { return &thread; }
