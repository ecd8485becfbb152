// Calls into the library: the GIL released, statuses turned into exceptions,
// and the exceptions of Python backends carried through the library unchanged.
#pragma once

#include <mla_prefill.h>
#include <nanobind/nanobind.h>

#include <string>

#include "gil.h"
#include "log.h"

namespace mla_python {

namespace nb = nanobind;

/// Text that came from C code: what is not UTF-8 is replaced.
nb::str text_of(const std::string &text);

/// `str(value)`; "?" where that fails.
std::string text_of(nb::handle value);

/// The same for C code: a NUL inside, which would end it there, is replaced.
std::string c_text_of(nb::handle value);

/// A name that is looked up time and again: made once, kept for ever.
nb::handle interned(const char *name);

/// Whether it is a KeyboardInterrupt or another that is no Exception, which nobody may take
/// for a refusal.
bool is_interruption(nb::handle exception);

template <class Integer>
nb::list list_of(const Integer *values, std::int64_t count, Integer scale = 1) {
  nb::list list;
  for (std::int64_t i = 0; i < count; ++i) list.append(values[i] * scale);
  return list;
}

/// Raises `type(text)`.
[[noreturn]] void raise(PyObject *type, const std::string &text);

/// One call from Python into the library on this thread. While it lasts, a
/// Python backend that fails beneath it leaves its exception here, and the
/// caller gets that very exception instead of a text about it.
class LibraryCall {
 public:
  LibraryCall() noexcept;
  ~LibraryCall();
  LibraryCall(const LibraryCall &) = delete;
  LibraryCall &operator=(const LibraryCall &) = delete;

  /// Runs `call` without the GIL, logs what was said meanwhile; raises unless it
  /// returns MLA_OK.
  template <class Call>
  void operator()(Call call) {
    mla_status status;
    {
      const WithoutGil without_gil;
      status = call();
    }
    deliver_log();
    if (status != MLA_OK) fail(status);
    raise_interruption();
  }

  /// Raises what a backend left behind, even where the library went on without it.
  void raise_left_behind();

  /// Leaves an exception with the innermost call of this thread, if there is one. What is no
  /// Exception stays there whatever else fails.
  static void leave(nb::object exception) noexcept;

 private:
  [[noreturn]] void fail(mla_status status);

  /// Raises what is no Exception: of a KeyboardInterrupt nobody may make a text.
  void raise_interruption();

  LibraryCall *outer_;
  nb::object exception_;
};

/// Runs the library's `call` as a LibraryCall of its own.
template <class Call>
void call_library(Call call) {
  LibraryCall()(call);
}

/// Must be told when the interpreter ends: backends of Python's are then refused.
void interpreter_is_ending() noexcept;
bool interpreter_has_ended() noexcept;

/// What a callback of the library does with its work: runs it with the GIL and
/// turns an exception into a status, a message and a LibraryCall::leave().
template <class Work>
mla_status in_python(Work work) noexcept;

/// For in_python(): call with the GIL and the exception being handled.
mla_status leave_current_exception() noexcept;

template <class Work>
mla_status in_python(Work work) noexcept {
  if (interpreter_has_ended()) {
    mla_set_last_error_message("the Python interpreter of this backend has ended");
    return MLA_ERROR_INTERNAL;
  }
  const WithGil with_gil;
  try {
    work();
    return MLA_OK;
  } catch (...) {
    return leave_current_exception();
  }
}

}  // namespace mla_python
