#include "openmp_loop.h"

#include <dlfcn.h>
#include <mla_prefill.h>
#include <pthread.h>

#include <atomic>
#include <cstdint>

#include "arguments.h"
#include "older_libraries.h"

MLA_CALL_FIRST_VERSION(dlsym);

namespace mla_python {

namespace {

/// What compilers call for `#pragma omp parallel`, here without being linked to
/// any OpenMP library. GNU's has it, LLVM's and Intel's have it for GNU's sake.
using Parallel = void (*)(void (*region)(void *), void *data, unsigned threads, unsigned flags);
constexpr const char *kParallel = "GOMP_parallel";

/// A loop whose iterations the threads of a team take one by one.
struct Loop {
  mla_parallel_task task;
  void *context;
  std::int64_t count;
  std::atomic<std::int64_t> next{0};

  static void take_iterations(void *data) {
    auto &loop = *static_cast<Loop *>(data);
    for (std::int64_t index; (index = loop.next.fetch_add(1)) < loop.count;) {
      loop.task(loop.context, index);
    }
  }
};

void run_on_team(void *parallel, std::int64_t count, mla_parallel_task task, void *context) {
  Loop loop{task, context, count};
  // A team as large as other regions': where sizes change, GNU's library ends
  // threads and starts them again.
  constexpr unsigned team_of_the_others = 0;
  reinterpret_cast<Parallel>(parallel)(&Loop::take_iterations, &loop, team_of_the_others, 0);
}

std::atomic<bool> is_in_use{false};

void use_own_threads() {
  // Else the loop may be one of the host's own.
  if (is_in_use.exchange(false)) mla_set_parallel_for(nullptr, nullptr);
}

}  // namespace

bool use_openmp_threads(bool enabled) {
  // Of the library that torch's own calls reach: torch, too, finds it globally.
  void *parallel = enabled ? dlsym(RTLD_DEFAULT, kParallel) : nullptr;
  if (!parallel) {
    use_own_threads();
    return false;
  }
  static const int watches_forks = pthread_atfork(nullptr, nullptr, &use_own_threads);
  if (watches_forks != 0) return false;
  call_library([&] { return mla_set_parallel_for(&run_on_team, parallel); });
  is_in_use = true;
  return true;
}

}  // namespace mla_python
