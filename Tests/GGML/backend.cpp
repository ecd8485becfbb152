#include "backend.hpp"

#include <cstdio>
#include <cstdlib>
#include <mutex>

namespace {

std::mutex log_mutex;
std::string log_text;
int failed = 0;

void remember(ggml_log_level, const char *text, void *) {
  const std::lock_guard<std::mutex> hold(log_mutex);
  log_text += text;
}

}  // namespace

void begin() {
  setenv("MLA_VERBOSE", "1", 1);
  // What is logged where memory is short is kept, too.
  log_text.reserve(1 << 20);
  ggml_log_set(remember, nullptr);
  // Where the CPU's is a file, too.
  if (ggml_backend_dev_count() == 0) ggml_backend_load_all();
}

std::string take_log() {
  const std::lock_guard<std::mutex> hold(log_mutex);
  const std::string taken = log_text;
  log_text.clear();
  return taken;
}

void report(bool good, const std::string &what, const std::string &why) {
  std::printf("%s %s%s%s\n", good ? "ok" : "not ok", what.c_str(), good ? "" : ": ", good ? "" : why.c_str());
  std::fflush(stdout);
  failed += good ? 0 : 1;
}

int failures() { return failed; }

Backend::Backend(int threads, const char *device) : raw_(ggml_backend_init_by_name(device, nullptr)) {
  ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(ggml_backend_get_device(raw_));
  const auto set_threads = reinterpret_cast<ggml_backend_set_n_threads_t>(
      ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads"));
  set_threads(raw_, threads);
}

double bound(const Shape &shape, bool delegated) {
  if (delegated) return ggml_is_quantized(shape.k) ? 5e-2 : 2e-2;
  if (shape.k == GGML_TYPE_F16 && shape.v == GGML_TYPE_F16) return 2e-3;
  return shape.k == GGML_TYPE_BF16 ? 2e-2 : 2e-5;
}

std::string check(const Shape &shape, uint64_t seed, bool delegated, int threads) {
  Problem problem(shape, seed);
  Backend backend(threads);
  // A single row may be declined, and is right nonetheless.
  if (shape.rows > 1 && !backend.takes(problem.node())) return text_of(shape) + ": refused";
  if (backend.compute(problem) != GGML_STATUS_SUCCESS) return text_of(shape) + ": failed: " + take_log();
  const double error = problem.error();
  if (error <= bound(shape, delegated)) return "";
  return text_of(shape) + ": off by " + std::to_string(error) + " (seed " + std::to_string(seed) + ")";
}
