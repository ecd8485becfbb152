/* Carries out a node, by mla_attention. */
#ifndef MLA_GGML_ATTENTION_HPP
#define MLA_GGML_ATTENTION_HPP

#include <mla_prefill.h>

#include <vector>

#include "Node.hpp"
#include "Rows.hpp"
#include "Runs.hpp"

namespace mla_ggml {

/// Keeps its memory from node to node; one graph at a time.
class Attention {
 public:
  /// Writes node.out: where rows see keys, attention to these, else 0. Throws std::bad_alloc.
  mla_status run(const Node &node, const Visible &visible);

 private:
  /// Keys and values that calls see: those from key `first` on, by the count that goes on over streams.
  struct Keys {
    int64_t first;
    mla_tensor k, v;
  };

  mla_status scattered(const Node &node, const std::vector<ScatteredRow> &rows, const mla_tensor &q);
  Keys copies(const Node &node, int64_t first);
  mla_tensor queries(const Node &node);
  mla_status in_chunks(const Node &node, const Passes &passes, const mla_tensor &q);
  mla_status attend(const Node &node, const mla_tensor &q, const Keys &keys, const std::vector<Request> &pass);
  mla_status call(const Node &node, const mla_tensor &q, const Keys &keys, const Request *begin, const Request *end);
  void finish(const Node &node);

  int64_t total_rows_ = 0;
  /// Of each row: whether out has a part of it.
  std::vector<char> written_;
  /// Of what out has: [heads, total_rows_].
  float *lse_ = nullptr;
  Scratch q_memory_, k_memory_, v_memory_, lse_memory_, part_out_memory_, part_lse_memory_;
  std::vector<int32_t> cu_seqlens_q_, k_begin_, k_count_;
  std::vector<Request> pass_;
  std::vector<int64_t> copied_;
};

}  // namespace mla_ggml

#endif
