#pragma once

namespace mla_python {

/// Makes runs use the threads of the OpenMP library that the process has loaded,
/// which torch's operators run on, or, `enabled` false, the library's own again.
///
/// A forked child goes back to the library's own: OpenMP libraries do not mend
/// their state after a fork, and wait for threads that the child does not have.
///
/// Returns: whether runs are on OpenMP's threads now; without such a library not.
bool use_openmp_threads(bool enabled);

}  // namespace mla_python
