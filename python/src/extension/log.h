// The library's log, handed on to Python's `logging` or a function.
#pragma once

#include <mla_prefill.h>
#include <nanobind/nanobind.h>

namespace mla_python {

namespace nb = nanobind;

/// Sends the library's log to the logger "mla_prefill" from now on, unless the host has a
/// callback of its own. Messages come from any thread, also from those of a run, which
/// must not wait for the GIL: they are kept until a call from Python ends.
void keep_log();

/// What does that.
mla_log_callback log_callback();

/// Hands on what has been kept. With the GIL and without an exception; raises nothing but what
/// is no Exception.
void deliver_log();

/// Has messages handed to `callback(level, message)` from now on, in the place of a host's
/// callback, too. None: to `logging` again, unless a host has set a callback since. TypeError
/// for what cannot be called.
void set_log_callback(nb::handle callback);

}  // namespace mla_python
