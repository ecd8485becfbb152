#include "Runs.hpp"

#include <algorithm>

namespace mla_ggml {

namespace {

constexpr uint16_t hidden = 0xfc00;  // -inf of fp16
constexpr uint16_t sign = 0x8000;

/// The first of [from, count) that differs from `value` in bits of `bits`.
int64_t first_other(const uint16_t *row, int64_t from, int64_t count, uint16_t value, uint16_t bits) {
  constexpr int64_t block = 64;
  while (from + block <= count) {
    uint16_t differing = 0;
    for (int64_t i = 0; i < block; ++i) {
      differing = static_cast<uint16_t>(differing | (row[from + i] ^ value));
    }
    if (differing & bits) break;
    from += block;
  }
  while (from < count && ((row[from] ^ value) & bits) == 0) ++from;
  return from;
}

/// Appends row's run to the requests of its pass: to the last of them, where it goes on.
void append(std::vector<Request> &pass, int64_t row, int64_t first, int64_t end) {
  if (!pass.empty()) {
    Request &last = pass.back();
    if (last.first_row + last.rows == row && last.first_key == first) {
      const bool same = last.end_key == end, next = last.end_key + 1 == end;
      if ((same && !last.causal) || (next && (last.causal || last.rows == 1))) {
        last.causal = next;
        last.end_key = end;
        ++last.rows;
        return;
      }
    }
  }
  pass.push_back({row, 1, first, end, false});
}

bool read_stream(const Node &node, int64_t stream, int64_t most_runs, Passes &passes) {
  const int64_t first_row = stream * node.rows, first_key = stream * node.stream_keys();
  if (!node.mask) {
    if (passes.empty()) passes.emplace_back();
    passes[0].push_back({first_row, node.rows, first_key, first_key + node.keys, false});
    return true;
  }
  const char *mask = static_cast<const char *>(node.mask->data) +
                     static_cast<size_t>(stream % node.mask->ne[3]) * node.mask->nb[3];
  for (int64_t i = 0; i < node.rows; ++i) {
    const auto *row = reinterpret_cast<const uint16_t *>(mask + static_cast<size_t>(i) * node.mask->nb[1]);
    size_t runs = 0;
    for (int64_t begin = 0; (begin = first_other(row, begin, node.keys, hidden, 0xffff)) < node.keys; ++runs) {
      const int64_t end = first_other(row, begin, node.keys, 0, static_cast<uint16_t>(~sign));
      if (end == begin || runs == static_cast<size_t>(most_runs)) return false;
      if (passes.size() == runs) passes.emplace_back();
      append(passes[runs], first_row + i, first_key + begin, first_key + end);
      begin = end;
    }
  }
  return true;
}

}  // namespace

bool read_mask(const Node &node, int64_t most_runs, Passes &passes) {
  passes.clear();
  for (int64_t stream = 0; stream < node.streams; ++stream) {
    if (!read_stream(node, stream, most_runs, passes)) return false;
  }
  return true;
}

void clip(const Request &request, int64_t begin, int64_t end, std::vector<Request> &part) {
  const int64_t first = std::max(request.first_key, begin), last = std::min(request.end_key, end);
  if (first >= last) return;
  if (!request.causal) {
    part.push_back({request.first_row, request.rows, first, last, false});
    return;
  }
  // Row i sees keys up to ends + i: rows before `none` see nothing of the part, from `all` on all of it.
  const int64_t ends = request.end_key - request.rows + 1;
  const int64_t none = std::clamp<int64_t>(first + 1 - ends, 0, request.rows);
  const int64_t all = std::clamp<int64_t>(last - ends, none, request.rows);
  const int64_t row = request.first_row;
  if (all > none) part.push_back({row + none, all - none, first, ends + all - 1, all - none > 1});
  if (request.rows > all) part.push_back({row + all, request.rows - all, first, last, false});
}

}  // namespace mla_ggml
