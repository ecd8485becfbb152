/* What a host does with the backend beside computing: other versions of ggml, threads, several
 * backends at once, unloading.
 *
 *   host libggml-mla.so
 */
#include <dirent.h>
#include <dlfcn.h>
#include <mla_prefill.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <thread>

#include "backend.hpp"

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool is_sanitized = true;
#elif defined(__has_feature)
constexpr bool is_sanitized = __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
constexpr bool is_sanitized = false;
#endif

const char *version_to_say = nullptr;

int64_t lines_with(const std::string &log, const std::string &what) {
  int64_t count = 0;
  for (size_t at = 0; (at = log.find(what, at)) != std::string::npos; ++at) ++count;
  return count;
}

bool is_mapped(const char *name) {
  std::ifstream file("/proc/self/maps");
  const std::string maps{std::istreambuf_iterator<char>(file), {}};
  return maps.find(name) != std::string::npos;
}

void another_version(const char *path) {
  version_to_say = "0.0.1";
  take_log();
  ggml_backend_reg_t loaded = ggml_backend_load(path);
  const std::string log = take_log();
  version_to_say = nullptr;
  report(!loaded && !ggml_backend_reg_by_name("MLA"), "another version of ggml gets no backend");
  report(lines_with(log, "mla: ") == 1 && lines_with(log, "built for ggml") == 1, "and one line that says so", log);
}

bool load(const char *path) {
  take_log();
  const bool loaded = ggml_backend_load(path) != nullptr;
  const std::string log = take_log();
  report(loaded && lines_with(log, "mla: ") == 1, "loading, with one line of ours", log);
  return loaded;
}

/// In a process that has no threads yet.
int threads_of(const char *path, int threads) {
  const pid_t child = fork();
  if (child == 0) {
    if (!ggml_backend_load(path)) _exit(0);
    Shape shape;
    shape.rows = 512, shape.keys = 512, shape.heads = 8;
    Problem problem(shape, 1);
    Backend backend(threads);
    if (backend.compute(problem) != GGML_STATUS_SUCCESS) _exit(0);
    int count = 0;
    DIR *tasks = opendir("/proc/self/task");
    while (const dirent *task = readdir(tasks)) count += task->d_name[0] != '.';
    _exit(count);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

void threads(const char *path) {
  for (const int wanted : {1, 2, 5}) {
    const int count = threads_of(path, wanted);
    report(count == wanted, std::to_string(wanted) + " threads compute where a host asks for these", std::to_string(count));
  }
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

/// Backends that come and go on several threads, with other numbers of threads each.
void several_at_once(size_t count) {
  std::vector<std::string> wrong(count);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < count; ++t) {
    threads.emplace_back([&wrong, t] {
      std::mt19937_64 random(100 + t);
      for (int i = 0; i < 40 && wrong[t].empty(); ++i) {
        const auto team = 1 + static_cast<int>(random() % 3);
        wrong[t] = check(random_shape(any_of(random, {Mask::causal, Mask::hole}), random), random(), false, team);
      }
    });
  }
  for (std::thread &thread : threads) thread.join();
  std::string all;
  for (const std::string &each : wrong) all += each;
  report(all.empty(), std::to_string(count) + " backends at once", all);
}

/// A call of the library's own, on two threads.
bool attention_runs() {
  constexpr int64_t rows = 256, dim = 64;
  std::vector<float> numbers(rows * dim, 1), result(rows * dim);
  const auto tensor = [](std::vector<float> &data) {
    mla_tensor made = MLA_TENSOR_INIT;
    made.dtype = MLA_DTYPE_FLOAT32, made.data = data.data(), made.ndim = 3;
    made.shape[0] = rows, made.shape[1] = 1, made.shape[2] = dim;
    made.strides[0] = made.strides[1] = dim, made.strides[2] = 1;
    return made;
  };
  const mla_tensor in = tensor(numbers), out = tensor(result);
  const int32_t offsets[] = {0, rows};
  mla_attention_args args = MLA_ATTENTION_ARGS_INIT;
  args.q = args.k = args.v = &in, args.out = &out;
  args.num_requests = 1, args.cu_seqlens_q = args.cu_seqlens_k = offsets;
  args.scale = 1;
  return mla_set_num_threads(2) == MLA_OK && mla_attention(&args) == MLA_OK && std::fabs(result.back() - 1) < 1e-5F;
}

/// A loop that the library is left with would be one of code that is gone.
void unloading(const char *path) {
  ggml_backend_unload(ggml_backend_reg_by_name("MLA"));
  report(!ggml_backend_dev_by_name("MLA"), "unloading");
  report(is_sanitized || !is_mapped("libggml-mla.so"), "nothing of it stays");
  report(attention_runs(), "the library computes without it");
  if (load(path)) report(check(Shape(), 1, false).empty(), "computing again");
}

}  // namespace

/// Stands before ggml's own, for the backend as well.
extern "C" const char *ggml_version(void) {
  static const auto real = reinterpret_cast<const char *(*)()>(dlsym(RTLD_NEXT, "ggml_version"));
  return version_to_say ? version_to_say : real();
}

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  begin();
  // What fork() leaves of threads the sanitizer cannot follow.
  if (!is_sanitized) threads(argv[1]);
  another_version(argv[1]);
  if (!load(argv[1])) return 1;
  refused_call();
  several_at_once(2);
  several_at_once(4);
  unloading(argv[1]);
  return failures() ? 1 : 0;
}
