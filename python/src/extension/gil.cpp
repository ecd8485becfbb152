#include "gil.h"

#include <cxxabi.h>
#include <unistd.h>

#include "calls.h"

namespace mla_python {

namespace {

/// Runs what may want the GIL. Nothing in it may need a destructor: that would run without
/// the GIL before the thread stops.
template <class Work>
auto stopping_at_the_end(Work work) {
  try {
    return work();
  } catch (abi::__forced_unwind &) {
    // A host may cancel a thread of its own at any time.
    if (!interpreter_has_ended()) throw;
    // The handler must not be left, nor may the unwinding go on. Exiting does not wait.
    for (;;) pause();
  }
}

}  // namespace

WithoutGil::WithoutGil() : state_(PyEval_SaveThread()) {}

WithoutGil::~WithoutGil() {
  stopping_at_the_end([&] { PyEval_RestoreThread(state_); });
}

WithGil::WithGil() : state_(stopping_at_the_end([] { return PyGILState_Ensure(); })) {}

WithGil::~WithGil() {
  // The last objects of a thread may run code.
  stopping_at_the_end([&] { PyGILState_Release(state_); });
}

nb::object called(nb::handle callable, const nb::tuple &arguments, nb::handle keywords) {
  PyObject *result = stopping_at_the_end(
      [&] { return PyObject_Call(callable.ptr(), arguments.ptr(), keywords.ptr()); });
  if (!result) throw nb::python_error();
  return nb::steal(result);
}

void drop(PyObject *object) {
  stopping_at_the_end([&] { Py_DECREF(object); });
}

}  // namespace mla_python
