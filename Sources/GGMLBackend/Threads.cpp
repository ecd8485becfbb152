#include "Threads.hpp"

#include <mla_prefill.h>

#include <cstring>
#include <mutex>

#include "ggml-backend.h"

namespace mla_ggml {

namespace {

std::mutex sharing;
int shares = 0;
bool has_openmp = false;
thread_local int32_t threads = 1;

void openmp_loop(void *, int64_t count, mla_parallel_task task, void *context) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
  for (int64_t i = 0; i < count; ++i) task(context, i);
}

/// Whether ggml's CPU backend computes on OpenMP's threads.
bool ggml_has_openmp() {
  ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
  if (!cpu) return false;
  const auto features = reinterpret_cast<ggml_backend_get_features_t>(
      ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(cpu), "ggml_backend_get_features"));
  if (!features) return false;
  for (const ggml_backend_feature *it = features(ggml_backend_dev_backend_reg(cpu)); it->name; ++it) {
    if (std::strcmp(it->name, "OPENMP") == 0) return true;
  }
  return false;
}

}  // namespace

SharedThreads::SharedThreads() {
  const std::lock_guard<std::mutex> hold(sharing);
  if (shares == 0) has_openmp = ggml_has_openmp() && mla_set_parallel_for(openmp_loop, nullptr) == MLA_OK;
  ++shares;  // now that nothing can throw
}

SharedThreads::~SharedThreads() {
  const std::lock_guard<std::mutex> hold(sharing);
  if (--shares == 0 && has_openmp) mla_set_parallel_for(nullptr, nullptr);
}

void use_threads(int32_t count) {
  threads = std::clamp<int32_t>(count, 1, 1024);
  if (mla_get_num_threads() != threads) mla_set_num_threads(threads);
}

int32_t detail::own_threads() { return has_openmp ? threads : 1; }

}  // namespace mla_ggml
