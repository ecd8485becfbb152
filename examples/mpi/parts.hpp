// Which tokens of a prompt are which rank's.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

/// A prompt, cut into parts of equal length that are dealt to ranks there and back, so that
/// causal work is even: of 2n parts that follow each other rank r has r and 2n - 1 - r.
struct Parts {
  std::int32_t tokens;
  int ranks;
  /// Of each part but the last; up to 1024 a row's bits do not depend on the ranks.
  std::int32_t part_tokens;

  int count() const { return (tokens + part_tokens - 1) / part_tokens; }
  std::int32_t begin(int part) const { return part * part_tokens; }
  std::int32_t size(int part) const { return std::min(part_tokens, tokens - begin(part)); }
  int owner(int part) const {
    const int place = part % (2 * ranks);
    return std::min(place, 2 * ranks - 1 - place);
  }
  /// In which a part was dealt: two to each rank in all but the last.
  int round(int part) const { return part / (2 * ranks); }
  int rounds() const { return (count() + 2 * ranks - 1) / (2 * ranks); }

  /// A rank's, in the prompt's order.
  std::vector<int> of(int rank) const {
    std::vector<int> parts;
    for (int part = 0; part < count(); ++part) {
      if (owner(part) == rank) parts.push_back(part);
    }
    return parts;
  }

  /// Where a rank's parts begin among its rows, and at the end how many it has.
  std::vector<std::int32_t> offsets(int rank) const {
    std::vector<std::int32_t> offsets{0};
    for (const int part : of(rank)) offsets.push_back(offsets.back() + size(part));
    return offsets;
  }

  /// Where a part begins among its owner's rows.
  std::int32_t row(int part) const {
    return (2 * round(part) + (part % (2 * ranks) >= ranks ? 1 : 0)) * part_tokens;
  }
};
