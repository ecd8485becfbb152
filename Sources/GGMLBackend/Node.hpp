/* A node of ggml's graph that attends: GGML_OP_FLASH_ATTN_EXT, read once. */
#ifndef MLA_GGML_NODE_HPP
#define MLA_GGML_NODE_HPP

#include <cstdint>

#include "ggml.h"

namespace mla_ggml {

/// ggml's dimensions run from the innermost: q [dim, rows, heads, streams], k [dim, keys,
/// kv_heads, streams], v likewise, mask [keys, rows, 1, streams or 1], sinks [heads],
/// out [v_dim, heads, rows, streams], dense. A stream has keys of its own: with all streams'
/// counted on, row and key numbers are one range each.
struct Node {
  explicit Node(ggml_tensor *node);

  ggml_tensor *out;
  const ggml_tensor *q, *k, *v;
  /// May be null.
  const ggml_tensor *mask, *sinks;
  float scale;
  int64_t dim, v_dim, rows, keys, heads, kv_heads, streams;

  /// Whether v is the beginning of each row of k.
  bool values_in_keys() const;
  /// Whether keys and values are of one type that the library takes.
  bool has_plain_keys() const;
  /// What queries, keys and values are handed over as: that of plain keys, else fp32.
  ggml_type call_type() const;
  /// How many queries, of rows and of heads that share it, a key should meet: fewer are ggml's.
  int64_t least_queries() const;
  /// From one stream's first key to the next one's.
  int64_t stream_keys() const;
};

inline constexpr char few_queries[] = "few queries for a key";

/// Why an operation is not for this library; null where it is. Knows shapes and types alone,
/// not what a mask holds.
const char *reason_against(const ggml_tensor *op);

}  // namespace mla_ggml

#endif
