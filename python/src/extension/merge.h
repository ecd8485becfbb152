// Merging partial attention states.
#pragma once

#include "calls.h"

namespace mla_python {

void bind_merge(nb::module_ &module);

}  // namespace mla_python
