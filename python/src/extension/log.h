// The library's log, handed on to Python's `logging`.
#pragma once

#include <mla_prefill.h>
#include <nanobind/nanobind.h>

namespace mla_python {

/// Sends the library's log to the logger "mla_prefill" from now on, unless the host has a
/// callback of its own. Messages come from any thread, also from those of a run, which
/// must not wait for the GIL: they are kept until a call from Python ends.
void keep_log();

/// What does that.
mla_log_callback log_callback();

/// Logs what has been kept. With the GIL and without an exception; raises nothing but what
/// is no Exception.
void deliver_log();

}  // namespace mla_python
