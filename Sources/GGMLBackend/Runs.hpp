/* What a mask lets each row see, as requests of attention. */
#ifndef MLA_GGML_RUNS_HPP
#define MLA_GGML_RUNS_HPP

#include <cstdint>
#include <vector>

#include "Node.hpp"

namespace mla_ggml {

/// Rows that see a run of keys each: the last row all of [first_key, end_key), and where
/// it is causal each row before one less at the end. Rows and keys are counted on over streams.
struct Request {
  int64_t first_row, rows, first_key, end_key;
  bool causal;
};

/// What rows see in runs: a pass is one run of every row that has as many, or part of one. Its requests lie
/// in the order of their rows, and share none.
using Passes = std::vector<std::vector<Request>>;

/// A row that sees `keys` keys here and there, as sparse attention selects them.
struct ScatteredRow {
  int64_t row, keys;
};

/// What all rows see.
struct Visible {
  Passes passes;
  /// In ascending order; they are in no pass.
  std::vector<ScatteredRow> scattered;
};

/// A row of more than `most_runs` runs is a scattered one, and so are all where they have little in common.
/// False where the mask is not of 0 and -inf.
bool read_mask(const Node &node, int64_t most_runs, Visible &visible);

/// Appends the keys that a row sees, which is of a node with a mask.
void append_keys(const Node &node, int64_t row, std::vector<int64_t> &keys);

/// Appends to `part` what is left of a request when it sees keys [begin, end) alone.
void clip(const Request &request, int64_t begin, int64_t end, std::vector<Request> &part);

}  // namespace mla_ggml

#endif
