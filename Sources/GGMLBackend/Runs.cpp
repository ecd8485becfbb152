#include "Runs.hpp"

#include <algorithm>
#include <utility>

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

/// Rows whose runs go on from each other: ends, and where it slides beginnings, move up by a key a row.
struct Band {
  Request first;
  bool sliding;
};

/// Adds a row's run to the bands of its pass: to the last of them, where it goes on.
void append(std::vector<Band> &pass, int64_t row, int64_t begin, int64_t end) {
  if (!pass.empty()) {
    auto &[last, sliding] = pass.back();
    const int64_t begins = last.first_key + (sliding ? last.rows - 1 : 0);
    const bool same = begins == begin, slides = begins + 1 == begin;
    const bool ends = last.end_key == end, causal = last.end_key + 1 == end;
    const bool goes_on = last.rows == 1 ? (same || slides) && (ends || causal)
                                        : (sliding ? slides : same) && (last.causal ? causal : ends);
    if (last.first_row + last.rows == row && goes_on) {
      sliding = slides;
      last.causal = causal;
      last.end_key = end;
      ++last.rows;
      return;
    }
  }
  pass.push_back({{row, 1, begin, end, false}, false});
}

/// Row i of n sees the keys from i on of n: rectangles, and triangles of half the size in the next pass.
void add_triangle(int64_t row, int64_t key, int64_t n, size_t level, Passes &levels) {
  constexpr int64_t smallest = 16;
  if (n <= 0) return;
  if (levels.size() == level) levels.emplace_back();
  if (n <= smallest) {
    for (int64_t i = 0; i < n; ++i) levels[level].push_back({row + i, 1, key + i, key + n, false});
    return;
  }
  const int64_t half = n / 2;
  levels[level].push_back({row, half, key + half, key + n, false});
  add_triangle(row, key, half, level + 1, levels);
  add_triangle(row + half, key + half, n - half, level + 1, levels);
}

/// Cuts a band that slides into blocks of rows. What all rows of a block may see is a request of `pass`,
/// what the first ones see before that a triangle.
void add_sliding(const Request &band, std::vector<Request> &pass, Passes &levels) {
  const int64_t last_row = band.rows - 1;
  const int64_t shortest = band.end_key - band.first_key - last_row;
  const int64_t block = std::min<int64_t>(128, band.causal ? shortest : band.rows);
  for (int64_t row = 0; row < band.rows; row += block) {
    const int64_t rows = std::min(block, band.rows - row), last = row + rows - 1;
    const int64_t end = band.end_key - (band.causal ? last_row - last : 0);
    pass.push_back({band.first_row + row, rows, band.first_key + last, end, band.causal});
    add_triangle(band.first_row + row, band.first_key + row, rows - 1, 0, levels);
  }
}

void add_requests(const std::vector<Band> &bands, Passes &passes) {
  std::vector<Request> pass;
  Passes levels;
  for (const auto &[band, sliding] : bands) {
    if (sliding) {
      add_sliding(band, pass, levels);
    } else {
      pass.push_back(band);
    }
  }
  passes.push_back(std::move(pass));
  for (auto &level : levels) passes.push_back(std::move(level));
}

/// Calls body(begin, end) for each run of keys that a row sees, counted on over streams. False where the
/// mask has something else than 0 and -inf.
template <typename Body>
bool for_each_run(const Node &node, int64_t row, const Body &body) {
  const int64_t stream = row / node.rows, first_key = stream * node.stream_keys();
  const char *mask = static_cast<const char *>(node.mask->data) +
                     static_cast<size_t>(stream % node.mask->ne[3]) * node.mask->nb[3] +
                     static_cast<size_t>(row % node.rows) * node.mask->nb[1];
  const auto *entries = reinterpret_cast<const uint16_t *>(mask);
  for (int64_t begin = 0; (begin = first_other(entries, begin, node.keys, hidden, 0xffff)) < node.keys;) {
    const int64_t end = first_other(entries, begin, node.keys, 0, static_cast<uint16_t>(~sign));
    if (end == begin) return false;
    body(first_key + begin, first_key + end);
    begin = end;
  }
  return true;
}

bool read_row(const Node &node, int64_t row, size_t most_runs, std::vector<std::vector<Band>> &passes,
              std::vector<ScatteredRow> &scattered) {
  std::vector<std::pair<int64_t, int64_t>> runs;
  int64_t keys = 0;
  const bool is_mask = for_each_run(node, row, [&](int64_t begin, int64_t end) {
    if (runs.size() <= most_runs) runs.emplace_back(begin, end);
    keys += end - begin;
  });
  if (!is_mask) return false;
  if (runs.size() > most_runs) {
    scattered.push_back({row, keys});
    return true;
  }
  if (passes.size() < runs.size()) passes.resize(runs.size());
  for (size_t i = 0; i < runs.size(); ++i) append(passes[i], row, runs[i].first, runs[i].second);
  return true;
}

void see_all(const Node &node, std::vector<std::vector<Band>> &passes) {
  passes.emplace_back();
  for (int64_t stream = 0; stream < node.streams; ++stream) {
    const int64_t first_key = stream * node.stream_keys();
    passes[0].push_back({{stream * node.rows, node.rows, first_key, first_key + node.keys, false}, false});
  }
}

}  // namespace

bool read_mask(const Node &node, int64_t most_runs, Visible &visible) {
  visible.passes.clear();
  visible.scattered.clear();
  std::vector<std::vector<Band>> runs;
  if (!node.mask) see_all(node, runs);
  const int64_t rows = node.mask ? node.rows * node.streams : 0;
  for (int64_t row = 0; row < rows; ++row) {
    if (!read_row(node, row, static_cast<size_t>(most_runs), runs, visible.scattered)) return false;
  }
  size_t bands = 0;
  for (const auto &pass : runs) bands += pass.size();
  // Many rows that have little in common are not worth so many requests.
  if (most_runs > 0 && node.rows >= 32 && bands > static_cast<size_t>(rows / 2)) return read_mask(node, 0, visible);
  for (const auto &pass : runs) add_requests(pass, visible.passes);
  return true;
}

void append_keys(const Node &node, int64_t row, std::vector<int64_t> &keys) {
  for_each_run(node, row, [&keys](int64_t begin, int64_t end) {
    for (int64_t key = begin; key < end; ++key) keys.push_back(key);
  });
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
