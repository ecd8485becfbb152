/* The threads that a graph is computed with: ggml's own where these are OpenMP's, else the
   library's. */
#ifndef MLA_GGML_THREADS_HPP
#define MLA_GGML_THREADS_HPP

#include <algorithm>
#include <cstdint>

namespace mla_ggml {

/// While one is alive in the process, ggml's OpenMP threads are the library's, if ggml has them:
/// they spin after each of its operators, and would be in the way of others.
class SharedThreads {
 public:
  SharedThreads();
  ~SharedThreads();
  SharedThreads(const SharedThreads &) = delete;
  SharedThreads &operator=(const SharedThreads &) = delete;
};

/// The calling thread's share of the machine until it computes another graph; at least 1.
void use_threads(int32_t count);

namespace detail {
int32_t own_threads();
}

/// Calls body(begin, end) for pieces of [0, count), of `grain` at least, in parallel. OpenMP's team is always
/// as large, as ggml's is: for one of another size it would end threads and begin others, and the process where
/// it cannot.
template <typename Body>
void in_parallel(int64_t count, int64_t grain, const Body &body) {
  const int64_t most = (count + grain - 1) / std::max<int64_t>(grain, 1);
  const int64_t pieces = std::clamp<int64_t>(most, 1, detail::own_threads());
  if (pieces == 1) return body(0, count);
#pragma omp parallel for schedule(static, 1) num_threads(detail::own_threads())
  for (int64_t i = 0; i < pieces; ++i) body(count * i / pieces, count * (i + 1) / pieces);
}

}  // namespace mla_ggml

#endif
