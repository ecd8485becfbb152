/* Attention of single nodes by the backend, against double precision.
 *
 *   nodes libggml-mla.so [COUNT]    COUNT random nodes of each kind of mask, and what else can happen
 */
#include <sys/resource.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <mutex>
#include <thread>
#include <utility>

#include "problem.hpp"

namespace {

std::mutex log_mutex;
std::string log_text;
int failures = 0;

void remember(ggml_log_level, const char *text, void *) {
  const std::lock_guard<std::mutex> hold(log_mutex);
  log_text += text;
}

std::string take_log() {
  const std::lock_guard<std::mutex> hold(log_mutex);
  return std::exchange(log_text, {});
}

void report(bool good, const std::string &what, const std::string &why = "") {
  std::printf("%s %s%s%s\n", good ? "ok" : "not ok", what.c_str(), good ? "" : ": ", good ? "" : why.c_str());
  failures += good ? 0 : 1;
}

/// A backend for a time; the device is the loaded one's.
class Backend {
 public:
  Backend() : raw_(ggml_backend_init_by_name("MLA", nullptr)) {
    ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(ggml_backend_get_device(raw_));
    const auto set_threads = reinterpret_cast<ggml_backend_set_n_threads_t>(
        ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads"));
    set_threads(raw_, 2);
  }
  ~Backend() { ggml_backend_free(raw_); }
  Backend(const Backend &) = delete;
  Backend &operator=(const Backend &) = delete;

  bool takes(const ggml_tensor *node) { return ggml_backend_supports_op(raw_, node); }
  ggml_status compute(Problem &problem) { return ggml_backend_graph_compute(raw_, problem.graph()); }

 private:
  ggml_backend_t raw_;
};

template <typename Value>
Value any_of(std::mt19937_64 &random, std::initializer_list<Value> values) {
  return values.begin()[std::uniform_int_distribution<size_t>(0, values.size() - 1)(random)];
}

Shape random_shape(Mask mask, std::mt19937_64 &random) {
  using Types = std::pair<ggml_type, ggml_type>;
  Shape shape;
  shape.mask = mask;
  const Types types = any_of<Types>(
      random, {{GGML_TYPE_F16, GGML_TYPE_F16}, {GGML_TYPE_F16, GGML_TYPE_F16}, {GGML_TYPE_F32, GGML_TYPE_F32},
               {GGML_TYPE_BF16, GGML_TYPE_BF16}, {GGML_TYPE_Q8_0, GGML_TYPE_Q8_0}, {GGML_TYPE_Q4_0, GGML_TYPE_Q4_0},
               {GGML_TYPE_Q8_0, GGML_TYPE_Q5_1}, {GGML_TYPE_F16, GGML_TYPE_F32}});
  shape.k = types.first, shape.v = types.second;
  const bool blocks = ggml_is_quantized(shape.k);
  shape.dim = blocks ? 32 * any_of<int64_t>(random, {1, 2, 3, 18}) : any_of<int64_t>(random, {1, 40, 64, 65, 128, 576});
  shape.v_dim = blocks ? 32 * any_of<int64_t>(random, {1, 2, 4, 16}) : any_of<int64_t>(random, {1, 40, 64, 67, 512});
  shape.values_in_keys = shape.k == shape.v && shape.v_dim <= shape.dim && random() % 2 == 0;
  shape.kv_heads = any_of<int64_t>(random, {1, 2, 3});
  shape.heads = shape.kv_heads * any_of<int64_t>(random, {1, 2, 5, 8});
  shape.rows = any_of<int64_t>(random, {1, 1, 2, 3, 17, 33});
  if (mask == Mask::window && shape.dim < 100) shape.rows = any_of<int64_t>(random, {2, 40, 129, 200});
  shape.keys = shape.rows + any_of<int64_t>(random, {0, 1, 30, 131});
  // More than a chunk holds.
  if (shape.dim == 576 && blocks && shape.rows <= 3) shape.keys += 5000;
  shape.streams = shape.keys > 5000 ? 1 : any_of<int64_t>(random, {1, 1, 2, 3});
  shape.sinks = random() % 3 == 0;
  shape.interleaved = random() % 3 != 0;
  return shape;
}

/// How far from double precision a result may be: q is rounded to the type of k.
double bound(const Shape &shape, bool delegated) {
  if (delegated) return ggml_is_quantized(shape.k) ? 5e-2 : 2e-2;
  if (shape.k == GGML_TYPE_F16 && shape.v == GGML_TYPE_F16) return 2e-3;
  return shape.k == GGML_TYPE_BF16 ? 2e-2 : 2e-5;
}

/// "" where a random node is as it has to be.
std::string check(const Shape &shape, uint64_t seed, bool delegated) {
  Problem problem(shape, seed);
  Backend backend;
  // A single row may be declined, and is right nonetheless.
  if (shape.rows > 1 && !backend.takes(problem.node())) return text_of(shape) + ": refused";
  if (backend.compute(problem) != GGML_STATUS_SUCCESS) return text_of(shape) + ": failed: " + take_log();
  const double error = problem.error();
  if (error <= bound(shape, delegated)) return "";
  return text_of(shape) + ": off by " + std::to_string(error) + " (seed " + std::to_string(seed) + ")";
}

void random_nodes(const char *name, Mask mask, bool delegated, int count) {
  std::mt19937_64 random(static_cast<uint64_t>(mask) + 1);
  for (int i = 0; i < count; ++i) {
    Shape shape = random_shape(mask, random);
    // A single row of two keys would do for the library.
    if (delegated) shape.rows = 33, shape.keys = 64;
    take_log();
    const std::string wrong = check(shape, random(), delegated);
    if (!wrong.empty()) return report(false, name, wrong);
    const std::string expected = delegated ? "1 left to ggml" : "1 served", log = take_log();
    if (log.find(expected) == std::string::npos) {
      return report(false, name, text_of(shape) + ": not " + expected + ": " + log);
    }
  }
  report(true, name);
}

/// Diagonals that lie across two chunks of keys, rows that see the second one alone.
void chunks(int count) {
  std::mt19937_64 random(7);
  for (int i = 0; i < count; ++i) {
    Shape shape;
    shape.dim = 576, shape.v_dim = 512, shape.heads = shape.kv_heads = 16;  // 240 keys a chunk
    shape.rows = 150, shape.keys = 260 + any_of<int64_t>(random, {0, 20, 40});
    shape.k = GGML_TYPE_Q8_0, shape.v = GGML_TYPE_F16;
    shape.mask = any_of(random, {Mask::causal, Mask::sequences, Mask::window});
    const std::string wrong = check(shape, random(), false);
    if (!wrong.empty()) return report(false, "chunks of keys", wrong);
  }
  report(true, "chunks of keys");
}

void declined() {
  Backend backend;
  const auto takes = [&backend](const Shape &shape) {
    Problem problem(shape, 1);
    return backend.takes(problem.node());
  };
  Shape softcap, alibi, step;
  softcap.softcap = 30;
  alibi.max_bias = 8;
  step.rows = 1, step.heads = 2, step.keys = 4095;  // of 128 products each
  report(!takes(softcap), "a softcap is declined");
  report(!takes(alibi), "ALiBi is declined");
  report(takes(Shape()), "a prompt is taken");
  report(!takes(step), "a step on few keys is declined");
  step.keys += 1;
  report(takes(step), "a step on more is taken");
}

void refused_call() {
  Shape shape;
  Problem problem(shape, 1);
  Backend backend;
  problem.set_scale(std::numeric_limits<float>::quiet_NaN());
  take_log();
  const ggml_status status = backend.compute(problem);
  const std::string log = take_log();
  report(status == GGML_STATUS_FAILED && log.find("scale") != std::string::npos, "a refused call fails, and says why", log);
}

/// Bytes of address space in use.
rlim_t address_space() {
  std::ifstream file("/proc/self/statm");
  rlim_t pages = 0;
  file >> pages;
  return pages * 4096;
}

void short_memory() {
  Shape shape;
  shape.dim = shape.v_dim = 64, shape.heads = 64, shape.kv_heads = 1, shape.rows = 16384, shape.keys = 8;
  shape.mask = Mask::none;
  Problem problem(shape, 1);
  Backend backend;
  rlimit before = {};
  getrlimit(RLIMIT_AS, &before);
  rlimit now = before;
  now.rlim_cur = address_space() + (16 << 20);
  setrlimit(RLIMIT_AS, &now);
  const ggml_status status = backend.compute(problem);
  setrlimit(RLIMIT_AS, &before);
  report(status == GGML_STATUS_ALLOC_FAILED, "memory that cannot be had fails", std::to_string(status));
  report(backend.compute(problem) == GGML_STATUS_SUCCESS, "and is had later");
}

void two_at_once(int count) {
  std::string wrong[2];
  std::thread threads[2];
  for (size_t t = 0; t < 2; ++t) {
    threads[t] = std::thread([&wrong, t, count] {
      std::mt19937_64 random(100 + t);
      for (int i = 0; i < count && wrong[t].empty(); ++i) {
        wrong[t] = check(random_shape(Mask::causal, random), random(), false);
      }
    });
  }
  for (std::thread &thread : threads) thread.join();
  report(wrong[0].empty() && wrong[1].empty(), "two backends at once", wrong[0] + wrong[1]);
}

void unloading(const char *path) {
  ggml_backend_unload(ggml_backend_reg_by_name("MLA"));
  report(!ggml_backend_dev_by_name("MLA"), "unloading");
  report(ggml_backend_load(path) && check(Shape(), 1, false).empty(), "loading again");
}

}  // namespace

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  const int count = argc > 2 ? std::atoi(argv[2]) : 40;
  setenv("MLA_VERBOSE", "1", 1);
  ggml_log_set(remember, nullptr);
  if (!ggml_backend_load(argv[1])) {
    std::printf("not ok loading: %s\n", take_log().c_str());
    return 1;
  }
  random_nodes("no mask", Mask::none, false, count);
  random_nodes("causal", Mask::causal, false, count);
  random_nodes("two sequences, and padding", Mask::sequences, false, count);
  random_nodes("keys with a hole", Mask::hole, false, count);
  random_nodes("windows", Mask::window, false, count);
  random_nodes("bidirectional", Mask::bidirectional, false, count);
  random_nodes("scattered keys are left to ggml", Mask::scattered, true, count / 4);
  random_nodes("biases are left to ggml", Mask::biased, true, count / 4);
  chunks(count / 2);
  declined();
  refused_call();
  short_memory();
  two_at_once(count);
  unloading(argv[1]);
  return failures ? 1 : 0;
}
