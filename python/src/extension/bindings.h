// The parts of mla_prefill._core.
#pragma once

#include "calls.h"

namespace mla_python {

/// `integer`, `flag`, `text` (value, name): arguments judged, for the package's Python code.
void bind_arguments(nb::module_ &module);

/// The host and the library that is loaded.
void bind_host(nb::module_ &module);

/// How fast this machine's instructions are.
void bind_instruction_rate(nb::module_ &module);

/// Tensors of the package's own, and names of types.
void bind_host_tensor(nb::module_ &module);

/// `describe(tensor, name)`: shape and type's name of what a run would read.
void bind_tensor_argument(nb::module_ &module);

/// The library's registry and selector.
void bind_registry(nb::module_ &module);

/// Backend objects of the library's.
void bind_backend(nb::module_ &module);

/// Merging partial attention states.
void bind_merge(nb::module_ &module);

/// How contexts are packed into chunks.
void bind_plan(nb::module_ &module);

/// The whole layer.
void bind_layer(nb::module_ &module);

/// Tokens into a paged cache and out of it.
void bind_cache(nb::module_ &module);

/// Attention in one call.
void bind_attention(nb::module_ &module);

/// Keys into an index cache, and the selection of those that tokens attend to.
void bind_indexer(nb::module_ &module);

}  // namespace mla_python
