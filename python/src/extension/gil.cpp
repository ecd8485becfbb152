#include "gil.h"

#include <unistd.h>

#include "calls.h"

namespace mla_python {

void stop_if_interpreter_has_ended() {
  // Exiting waits for no thread.
  while (interpreter_has_ended()) pause();
}

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
