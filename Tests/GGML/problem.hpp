/* A random node of attention, its tensors, and what double precision makes of it. */
#ifndef MLA_TESTS_GGML_PROBLEM_HPP
#define MLA_TESTS_GGML_PROBLEM_HPP

#include <ggml-backend.h>
#include <ggml.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

/// What a mask looks like.
enum class Mask {
  none,        ///< all rows see all keys
  causal,      ///< the last rows of a prompt, in a cache with room behind
  sequences,   ///< rows of two sequences, each with a prompt of its own, and a row that sees nothing
  hole,        ///< causal, but for keys that were taken out before
  window,      ///< no further back than a number of keys, and causal or not
  bidirectional,  ///< two texts, each seen by all of its rows
  scattered,   ///< any key or not
  selected,    ///< causal, and of the keys before any of them, one in so many: sparse attention
  biased       ///< numbers other than 0
};

struct Shape {
  int64_t dim = 64, v_dim = 64, rows = 8, keys = 40, heads = 4, kv_heads = 2, streams = 1;
  ggml_type k = GGML_TYPE_F16, v = GGML_TYPE_F16;
  Mask mask = Mask::causal;
  bool sinks = false;
  bool values_in_keys = false;
  /// Heads next to each other in a row of the cache, as llama.cpp has them; else each by itself.
  bool interleaved = true;
  int64_t selected_one_in = 8;
  float max_bias = 0, softcap = 0;
  float scale = 0;
};

template <typename Value>
Value any_of(std::mt19937_64 &random, std::initializer_list<Value> values) {
  return values.begin()[std::uniform_int_distribution<size_t>(0, values.size() - 1)(random)];
}

Shape random_shape(Mask mask, std::mt19937_64 &random);
std::string text_of(const Shape &shape);

/// Tensors of a node in one buffer. Where no row sees a key it is NaN, if its type has one.
class Problem {
 public:
  Problem(const Shape &shape, uint64_t seed);
  ~Problem();
  Problem(const Problem &) = delete;
  Problem &operator=(const Problem &) = delete;

  ggml_cgraph *graph() { return graph_; }
  ggml_tensor *node() { return out_; }
  void set_scale(float scale);
  /// The largest difference between the node's output and attention in double precision.
  double error() const;

 private:
  bool sees(int64_t stream, int64_t row, int64_t key) const;
  float bias(int64_t stream, int64_t row, int64_t key) const;
  void fill_mask(std::mt19937_64 &random);
  void fill_keys(ggml_tensor *tensor, std::mt19937_64 &random);
  void expected_row(int64_t stream, int64_t row, int64_t head, std::vector<double> &to) const;

  Shape shape_;
  float scale_;
  ggml_context *context_;
  ggml_backend_buffer_t buffer_;
  ggml_cgraph *graph_;
  ggml_tensor *q_, *k_, *v_, *out_, *mask_ = nullptr, *sinks_ = nullptr;
  std::vector<float> bias_;
};

#endif
