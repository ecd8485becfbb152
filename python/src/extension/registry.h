// The library's registry and selector.
#pragma once

#include "calls.h"

namespace mla_python {

void bind_registry(nb::module_ &module);

}  // namespace mla_python
