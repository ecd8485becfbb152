// mla_prefill._core: the library as Python sees it. Private: the package around
// it is the interface.
#include <string>

#include "bindings.h"
#include "log.h"

namespace mla_python {

namespace {

void require_matching_library() {
  if (mla_abi_version() == MLA_ABI_VERSION) return;
  raise(PyExc_ImportError,
        "this process has loaded libmlaprefill with ABI version " +
            std::to_string(mla_abi_version()) + ", mla_prefill was built for version " +
            std::to_string(MLA_ABI_VERSION));
}

}  // namespace

NB_MODULE(_core, module) {
  require_matching_library();
  // Backends that C code still holds at exit are no leak of Python's.
  nb::set_leak_warnings(false);
  nb::module_::import_("atexit").attr("register")(nb::cpp_function(&interpreter_is_ending));
  bind_arguments(module);
  bind_host(module);
  bind_instruction_rate(module);
  bind_host_tensor(module);
  bind_tensor_argument(module);
  bind_registry(module);
  bind_backend(module);
  bind_merge(module);
  bind_plan(module);
  bind_layer(module);
  bind_cache(module);
  bind_attention(module);
  bind_indexer(module);
  keep_log();
}

}  // namespace mla_python
