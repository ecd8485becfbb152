/* Memory that fails to be had while the backend computes: a status of ggml's, and served afterwards.
 *
 *   memory libggml-mla.so
 */
#include <sys/resource.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "../ABI/failing_allocations.hpp"
#include "backend.hpp"

namespace {

/// Nodes that take memory of each kind: queries of another type, parts that are merged, chunks of floats, copied keys.
std::vector<Shape> shapes_that_allocate() {
  std::vector<Shape> shapes(5);
  shapes[0].rows = 33, shapes[0].keys = 70, shapes[0].streams = 2;
  shapes[1].mask = Mask::hole, shapes[1].rows = 40, shapes[1].keys = 200, shapes[1].sinks = true;
  shapes[2].k = GGML_TYPE_Q8_0, shapes[2].v = GGML_TYPE_F16, shapes[2].rows = 20, shapes[2].keys = 90;
  shapes[3].mask = Mask::window, shapes[3].rows = 60, shapes[3].keys = 200;
  shapes[4].mask = Mask::selected, shapes[4].rows = 3, shapes[4].keys = 300, shapes[4].heads = 12;
  return shapes;
}

/// Computes with the `nth` allocation, and with `onwards` all after it, failing; "" where that is as it should be.
std::string short_of(const Shape &shape, long nth, bool onwards, long &seen, int &refused) {
  Problem problem(shape, 1);
  Backend backend;
  take_log();
  failing::start(nth, onwards);
  const ggml_status status = backend.compute(problem);
  seen = failing::stop();
  const std::string where = text_of(shape) + ", allocation " + std::to_string(nth) + " of " + std::to_string(seen);
  if (status == GGML_STATUS_ALLOC_FAILED) {
    ++refused;
    if (backend.compute(problem) != GGML_STATUS_SUCCESS) return where + ": not served afterwards";
  } else if (status != GGML_STATUS_SUCCESS) {
    return where + ": status " + std::to_string(status) + ", " + take_log();
  }
  return problem.error() <= bound(shape, false) ? "" : where + ": wrong";
}

void allocations() {
  int refused = 0;
  for (const Shape &shape : shapes_that_allocate()) {
    long seen = 0;
    // What OpenMP takes for a team it takes once.
    std::string wrong = short_of(shape, 0, false, seen, refused);
    const long all = seen;
    for (long nth = 1; nth <= all && wrong.empty(); ++nth) {
      for (const bool onwards : {false, true}) {
        if (wrong.empty()) wrong = short_of(shape, nth, onwards, seen, refused);
      }
    }
    if (!wrong.empty()) return report(false, "each allocation of a node fails in turn", wrong);
  }
  report(refused > 0, "each allocation of a node fails in turn", "none was needed");
}

/// A backend's own: made, asked, and taken down, which logs.
void allocations_of_a_backend() {
  Shape shape;
  shape.softcap = 30;
  Problem problem(shape, 1);
  ggml_backend_dev_t device = ggml_backend_dev_by_name("MLA");
  int refused = 0;
  for (long nth = 1; nth < 12; ++nth) {
    for (const bool onwards : {false, true}) {
      failing::start(nth, onwards);
      ggml_backend_t backend = ggml_backend_dev_init(device, nullptr);
      const bool takes = ggml_backend_dev_supports_op(device, problem.node());
      if (backend) ggml_backend_free(backend);
      failing::stop();
      if (takes) return report(false, "each allocation of a backend fails in turn", "took what it does not serve");
      refused += !backend;
    }
  }
  // Whose `new` is its own.
  const bool counted = !failing::under_address_sanitizer;
  report(refused > 0 || !counted, "each allocation of a backend fails in turn", "none was needed");
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

}  // namespace

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  begin();
  if (!ggml_backend_load(argv[1])) {
    std::printf("not ok loading: %s\n", take_log().c_str());
    return 1;
  }
  allocations();
  allocations_of_a_backend();
  // It maps more than any limit leaves.
  if (!failing::under_address_sanitizer) short_memory();
  return failures() ? 1 : 0;
}
