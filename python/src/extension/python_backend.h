// Backends written in Python, as the library runs them.
#pragma once

#include "calls.h"

namespace mla_python {

/// A vtable whose context is `adapter`, an object with the methods of
/// mla_prefill._adapter.BackendAdapter. The reference to it is the library's
/// from the moment a registration succeeds; until then the caller must give it
/// back with release_adapter().
mla_backend_vtable python_vtable(nb::handle adapter, const char *backend_name);
void release_adapter(const mla_backend_vtable &vtable);

}  // namespace mla_python
