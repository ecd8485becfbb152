// How contexts are packed into chunks.
#pragma once

#include "calls.h"

namespace mla_python {

void bind_plan(nb::module_ &module);

}  // namespace mla_python
