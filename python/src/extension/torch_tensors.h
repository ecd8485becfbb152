// What torch's tensors have beside their memory, and torch's modes, as far as calls must know.
#pragma once

#include "calls.h"

namespace mla_python {

/// torch, if the value is one of its tensors.
nb::object torch_of(nb::handle value);

/// ValueError that begins with `name` where a tensor's memory is not all of its meaning: torch
/// would record its gradient, it has a tangent, its numbers have the other sign. What other
/// libraries call so may be anything.
void require_plain_numbers(nb::handle value, const char *name);

/// ValueError that begins with `name` where torch records or imitates what is computed: it sees
/// its own operators alone, and would take what is written here for memory that nobody has
/// written.
void require_unrecorded(const char *name);

/// The same for a tensor of torch's without memory of its own, where that is why.
void require_untransformed(nb::handle value, const char *name);

}  // namespace mla_python
