#include "support.hpp"

KERNEL(threads_32, 32, 1)(PARAMETERS(test::Body) body) { body.run(body.data); }
KERNEL(threads_64, 64, 1)(PARAMETERS(test::Body) body) { body.run(body.data); }
KERNEL(threads_128, 128, 1)(PARAMETERS(test::Body) body) { body.run(body.data); }
KERNEL(threads_384, 384, 1)(PARAMETERS(test::Body) body) { body.run(body.data); }

test::Result test::run_body(Body body, const Launch& how) {
  const std::string name = "threads_" + std::to_string(how.threads);
  return launch(*find(name.c_str()), how.grid, how.threads, how.shared_bytes, &body, sizeof body, how.options);
}

int main() {
  test::matrices();
  test::numbers();
  test::copies();
  test::threads();
  test::races();
  test::rules();
  test::mbarriers();
  test::tensor_copies();
  test::products();
  return test::failures > 0;
}
