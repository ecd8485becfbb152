/* Rows of numbers turned into others, and memory for them. */
#ifndef MLA_GGML_ROWS_HPP
#define MLA_GGML_ROWS_HPP

#include <cstdint>
#include <memory>
#include <new>
#include <vector>

#include "Node.hpp"

namespace mla_ggml {

/// Memory that is kept from node to node, and grows.
class Scratch {
 public:
  /// `count` elements, of any values, until the next call. Throws std::bad_alloc.
  template <typename Element>
  Element *take(int64_t count) {
    return static_cast<Element *>(bytes(static_cast<size_t>(count) * sizeof(Element)));
  }

 private:
  void *bytes(size_t count);

  struct Release {
    void operator()(void *memory) const { ::operator delete(memory, std::align_val_t{64}); }
  };
  std::unique_ptr<void, Release> memory_;
  size_t size_ = 0;
};

/// q as [streams * rows, heads, dim], dense, of another type: fp32, fp16 or bf16.
void convert_queries(const Node &node, ggml_type type, void *to);

/// Rows of k or v by their numbers, counted on over streams, as [rows, kv_heads, dim], dense: of their own
/// type or as floats.
void copy_rows(const ggml_tensor *tensor, const std::vector<int64_t> &rows, ggml_type type, void *to);

}  // namespace mla_ggml

#endif
