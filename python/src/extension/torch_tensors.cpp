#include "torch_tensors.h"

#include <string>

namespace mla_python {

namespace {

nb::object attribute(nb::handle object, const char *name) {
  return nb::getattr(object, name, nb::none());
}

/// The answer of a function of torch's core, which runs no Python code; not valid where this
/// torch lacks the function.
nb::object answer_of(nb::handle function, nb::handle argument = nb::handle()) {
  if (function.is_none()) return nb::object();
  PyObject *answer = PyObject_CallFunctionObjArgs(function.ptr(), argument.ptr(), nullptr);
  if (!answer) throw nb::python_error();
  return nb::steal(answer);
}

/// What torch is asked for each tensor, looked up once: each look takes as long as an answer.
class Torch {
 public:
  /// NULL where torch has not been imported, or only in part.
  static const Torch *imported() {
    // Never destroyed: at exit torch may be gone before.
    static const Torch *torch = nullptr;
    if (torch) return torch;
    const nb::handle module = PyDict_GetItemString(PyImport_GetModuleDict(), "torch");
    if (!module.is_valid()) return nullptr;
    const nb::object forward_ad = attribute(attribute(module, "autograd"), "forward_ad");
    if (!forward_ad.is_none()) torch = new Torch(module, forward_ad);
    return torch;
  }

  const nb::object &module() const { return module_; }

  bool made(nb::handle value) const {
    const int is_tensor = PyObject_IsInstance(value.ptr(), tensor_.ptr());
    if (is_tensor < 0) throw nb::python_error();
    return is_tensor != 0;
  }

  bool records_gradients() const { return answer_of(is_grad_enabled_).is(Py_True); }

  bool has_tangent(nb::handle value) const {
    static const nb::handle level_name = interned("_current_level");
    const nb::object level = nb::getattr(forward_ad_, level_name, nb::none());
    // Below 0 no tensor has one.
    if (level.is_none() || PyLong_AsLong(level.ptr()) < 0 || !made(value)) return false;
    const nb::object dual = call_method(forward_ad_, "unpack_dual", value);
    return !attribute(dual, "tangent").is_none();
  }

  /// The name of who records or imitates operators; empty if nobody does. Modes that only
  /// watch do not count.
  std::string recorder() const {
    if (answer_of(is_tracing_).is(Py_True)) return "torch.jit.trace";
    const nb::object modes = answer_of(num_modes_);
    if (modes.is_valid() && PyLong_AsLong(modes.ptr()) > 0) {
      for (const char *kind : {"PROXY", "FAKE", "FUNCTIONAL"}) {
        const nb::object key = attribute(attribute(core_, "_TorchDispatchModeKey"), kind);
        const nb::object mode = answer_of(attribute(core_, "_get_dispatch_mode"), key);
        if (mode.is_valid() && !mode.is_none()) {
          return text_of(attribute(mode.type(), "__name__"));
        }
      }
    }
    const bool before_dispatch = answer_of(includes_key_, before_dispatch_).is(Py_True);
    return before_dispatch ? "a tracer of torch's" : "";
  }

  /// Whether a transform of torch.func has wrapped the tensor.
  bool wrapped(nb::handle value) const {
    const nb::object functorch = attribute(core_, "_functorch");
    return answer_of(attribute(functorch, "is_functorch_wrapped_tensor"), value).is(Py_True);
  }

 private:
  Torch(nb::handle module, const nb::object &forward_ad)
      : module_(nb::borrow(module)),
        tensor_(nb::getattr(module, "Tensor")),
        is_grad_enabled_(nb::getattr(module, "is_grad_enabled")),
        forward_ad_(forward_ad),
        core_(attribute(module, "_C")),
        is_tracing_(attribute(core_, "_is_tracing")),
        num_modes_(attribute(core_, "_len_torch_dispatch_stack")),
        includes_key_(attribute(core_, "_dispatch_tls_is_dispatch_key_included")),
        before_dispatch_(attribute(attribute(core_, "DispatchKey"), "PreDispatch")) {
    if (before_dispatch_.is_none()) includes_key_ = nb::none();
  }

  nb::object module_, tensor_, is_grad_enabled_, forward_ad_, core_;
  nb::object is_tracing_, num_modes_, includes_key_, before_dispatch_;
};

}  // namespace

nb::object torch_of(nb::handle value) {
  const Torch *torch = Torch::imported();
  return torch && torch->made(value) ? torch->module() : nb::object();
}

void require_plain_numbers(nb::handle value, const char *name) {
  const Torch *torch = Torch::imported();
  static const nb::handle requires_grad = interned("requires_grad"), is_neg = interned("is_neg");
  const bool has_gradient = nb::getattr(value, requires_grad, nb::none()).is(Py_True);
  if (has_gradient && (!torch || !torch->made(value) || torch->records_gradients())) {
    raise(PyExc_ValueError, std::string(name) +
                                ".requires_grad = True: gradients are recorded, and this call has "
                                "none: detach() it, or call under torch.no_grad()");
  }
  if (torch && torch->has_tangent(value)) {
    raise(PyExc_ValueError, std::string(name) +
                                ": has a tangent of forward-mode AD, which this call would lose; "
                                "unpack_dual() it");
  }
  const nb::object ask = nb::getattr(value, is_neg, nb::none());
  if (PyCallable_Check(ask.ptr()) && called(ask, nb::tuple()).is(Py_True)) {
    raise(PyExc_ValueError,
          std::string(name) + ".is_neg() = True: its memory has the other sign, resolve_neg() it");
  }
}

void require_unrecorded(const char *name) {
  const Torch *torch = Torch::imported();
  if (!torch) return;
  const std::string recorder = torch->recorder();
  if (recorder.empty()) return;
  raise(PyExc_ValueError, std::string(name) + ": " + recorder +
                              " is at work, which does not see what this call computes, but the "
                              "operators of mla_prefill.torch_ops");
}

void require_untransformed(nb::handle value, const char *name) {
  require_unrecorded(name);
  const Torch *torch = Torch::imported();
  if (!torch || !torch->wrapped(value)) return;
  raise(PyExc_ValueError, std::string(name) + ": is inside a transform of torch.func, as vmap "
                                              "and grad are: this call has no rule for it");
}

}  // namespace mla_python
