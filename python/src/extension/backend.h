// Backend objects of the library's, as Python holds them.
#pragma once

#include "calls.h"

namespace mla_python {

void bind_backend(nb::module_ &module);

}  // namespace mla_python
