/* ggml's own CPU backend, for nodes of which it shows too late that they are not for the library. */
#ifndef MLA_GGML_DELEGATE_HPP
#define MLA_GGML_DELEGATE_HPP

#include <cstdint>

#include "ggml-backend.h"

namespace mla_ggml {

class Delegate {
 public:
  Delegate() = default;
  ~Delegate();
  Delegate(const Delegate &) = delete;
  Delegate &operator=(const Delegate &) = delete;

  /// Computes node `index` of a graph.
  ggml_status compute(ggml_cgraph *graph, int index, int32_t threads);

 private:
  /// Made when it is first needed.
  ggml_backend_t cpu_ = nullptr;
};

}  // namespace mla_ggml

#endif
