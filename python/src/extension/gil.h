// The GIL, for threads that the end of the interpreter finds inside a call.
//
// Before 3.14 CPython ends such a thread with pthread_exit() as soon as it wants the GIL: an
// unwinding that ends the process where it meets a destructor or another noexcept function.
// Here the thread stays where it is instead, as CPython's own do from 3.14 on.
#pragma once

#include <cxxabi.h>
#include <nanobind/nanobind.h>

#include <utility>

namespace mla_python {

namespace nb = nanobind;

/// Does not return if the interpreter has ended.
void stop_if_interpreter_has_ended();

/// Runs what may want the GIL, as all does that may be Python code. Nothing in it may need a
/// destructor: that would run without the GIL before the thread stops.
template <class Work>
auto stopping_at_the_end(Work work) {
  try {
    return work();
  } catch (abi::__forced_unwind &) {
    // Neither may this handler be left nor may the unwinding go on, unless a host cancels a
    // thread of its own.
    stop_if_interpreter_has_ended();
    throw;
  }
}

/// While it lives, other threads may run Python code.
class WithoutGil {
 public:
  WithoutGil();
  ~WithoutGil();
  WithoutGil(const WithoutGil &) = delete;
  WithoutGil &operator=(const WithoutGil &) = delete;

 private:
  PyThreadState *state_;
};

/// While it lives, this thread may run Python code, whether Python has seen it before or not.
class WithGil {
 public:
  WithGil();
  ~WithGil();
  WithGil(const WithGil &) = delete;
  WithGil &operator=(const WithGil &) = delete;

 private:
  PyGILState_STATE state_;
};

/// Gives a reference up; the object's end may run code.
void drop(PyObject *object);

/// `callable(*arguments, **keywords)`, for what may be Python code: while that runs, its
/// thread gives the GIL away and wants it back time and again.
nb::object called(nb::handle callable, const nb::tuple &arguments,
                  nb::handle keywords = nb::handle());

/// `object.method(*arguments)`, likewise.
template <class... Arguments>
nb::object call_method(nb::handle object, const char *method, Arguments &&...arguments) {
  return called(nb::getattr(object, method),
                nb::make_tuple(std::forward<Arguments>(arguments)...));
}

}  // namespace mla_python
