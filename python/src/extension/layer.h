// The whole layer, and the paged cache that it reads, as Python holds them.
#pragma once

#include "calls.h"

namespace mla_python {

void bind_layer(nb::module_ &module);

}  // namespace mla_python
