// The host and the library that is loaded.
#pragma once

#include "calls.h"

namespace mla_python {

void bind_host(nb::module_ &module);

}  // namespace mla_python
