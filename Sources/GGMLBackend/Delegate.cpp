#include "Delegate.hpp"

#include "ggml-impl.h"

namespace mla_ggml {

Delegate::~Delegate() { ggml_backend_free(cpu_); }

ggml_status Delegate::compute(ggml_cgraph *graph, int index, int32_t threads) {
  if (!cpu_) cpu_ = ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr);
  if (!cpu_) return GGML_STATUS_FAILED;
  ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(ggml_backend_get_device(cpu_));
  const auto set_threads = reinterpret_cast<ggml_backend_set_n_threads_t>(
      ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads"));
  if (set_threads) set_threads(cpu_, threads);
  ggml_cgraph node = ggml_graph_view(graph, index, index + 1);
  return ggml_backend_graph_compute(cpu_, &node);
}

}  // namespace mla_ggml
