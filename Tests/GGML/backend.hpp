/* The backend that a test has loaded, what is logged, and what the test reports. */
#ifndef MLA_TESTS_GGML_BACKEND_HPP
#define MLA_TESTS_GGML_BACKEND_HPP

#include <ggml-backend.h>

#include <string>

#include "problem.hpp"

/// Makes ready for the backend, which is to count nodes. From here on the log is kept until it is taken.
void begin();
std::string take_log();

/// Prints a test's result; "why" where it is not good.
void report(bool good, const std::string &what, const std::string &why = "");
int failures();

/// A backend for a time, of the loaded device or of ggml's own CPU.
class Backend {
 public:
  explicit Backend(int threads = 2, const char *device = "MLA");
  ~Backend() { ggml_backend_free(raw_); }
  Backend(const Backend &) = delete;
  Backend &operator=(const Backend &) = delete;

  bool takes(const ggml_tensor *node) { return ggml_backend_supports_op(raw_, node); }
  ggml_status compute(Problem &problem) { return ggml_backend_graph_compute(raw_, problem.graph()); }

 private:
  ggml_backend_t raw_;
};

/// How far from double precision a result may be: q is rounded to the type of k.
double bound(const Shape &shape, bool delegated);

/// "" where a random node is as it has to be.
std::string check(const Shape &shape, uint64_t seed, bool delegated, int threads = 2);

#endif
