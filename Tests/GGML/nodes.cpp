/* Attention of single nodes by the backend, against double precision.
 *
 *   nodes libggml-mla.so [COUNT]    COUNT random nodes of each kind of mask
 */
#include <cstdio>
#include <cstdlib>

#include "backend.hpp"

namespace {

/// Rows of two sequences, all of whose queries would be enough for a key.
void few_queries() {
  Shape shape;
  shape.rows = 7, shape.kv_heads = shape.heads, shape.mask = Mask::sequences;
  take_log();
  const std::string wrong = check(shape, 1, true), log = take_log();
  report(wrong.empty() && log.find("1 left to ggml, few queries") != std::string::npos,
         "sequences with few queries each are left to ggml", wrong + log);
}

void random_nodes(const char *name, Mask mask, bool delegated, int count) {
  std::mt19937_64 random(static_cast<uint64_t>(mask) + 1);
  for (int i = 0; i < count; ++i) {
    Shape shape = random_shape(mask, random);
    // A single row of two keys would do for the library, and so would many queries.
    if (delegated) shape.rows = 33, shape.keys = 64, shape.heads = 2 * shape.kv_heads;
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

/// Windows end in a row that is called causal beside two that see the same.
void short_windows(int count) {
  Shape shape;
  shape.rows = shape.keys = 2, shape.streams = 3, shape.heads = 10, shape.mask = Mask::window;
  for (int i = 0; i < count; ++i) {
    const std::string wrong = check(shape, static_cast<uint64_t>(i), false);
    if (!wrong.empty()) return report(false, "short windows", wrong);
  }
  report(true, "short windows");
}

/// Diagonals that lie across two chunks of keys, rows that see the second one alone.
void chunks(int count) {
  std::mt19937_64 random(7);
  for (int i = 0; i < count; ++i) {
    Shape shape;
    shape.dim = 576, shape.v_dim = 512, shape.heads = 64, shape.kv_heads = 16;  // 240 keys a chunk
    shape.rows = 60, shape.keys = 245 + any_of<int64_t>(random, {0, 20, 40});
    shape.k = GGML_TYPE_Q8_0, shape.v = GGML_TYPE_F16;
    shape.mask = any_of(random, {Mask::causal, Mask::sequences, Mask::window, Mask::selected});
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
  Shape softcap, alibi, step, few;
  softcap.softcap = 30;
  alibi.max_bias = 8;
  step.rows = 1, step.kv_heads = 1, step.keys = 2047;  // of 512 products each
  few.rows = 3, few.heads = 2, few.keys = 4096;
  report(!takes(softcap), "a softcap is declined");
  report(!takes(alibi), "ALiBi is declined");
  report(takes(Shape()), "a prompt is taken");
  report(!takes(step), "a step on few keys is declined");
  step.keys += 1;
  report(takes(step), "a step on more is taken");
  report(!takes(few), "three queries for a key are declined");
  few.k = few.v = GGML_TYPE_BF16;
  report(takes(few), "three queries for a key of bf16 are taken");
  few.rows = 4, few.k = few.v = GGML_TYPE_F16;
  report(takes(few), "four queries for a key are taken");
}

}  // namespace

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  const int count = argc > 2 ? std::atoi(argv[2]) : 40;
  begin();
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
  random_nodes("selected keys", Mask::selected, false, count);
  random_nodes("scattered keys are left to ggml", Mask::scattered, true, count / 4);
  random_nodes("biases are left to ggml", Mask::biased, true, count / 4);
  few_queries();
  short_windows(count / 2);
  chunks(count / 8);
  declined();
  return failures() ? 1 : 0;
}
