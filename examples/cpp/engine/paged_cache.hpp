// Who owns which block of the paged cache, and which blocks hold which prefix.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <stdexcept>
#include <vector>

using Tokens = std::vector<std::int32_t>;

/// Hands out blocks of `block_size` tokens. A full block is known by all tokens
/// up to its end: requests that begin alike share blocks, which count their users.
class BlockAllocator {
 public:
  BlockAllocator(std::int32_t num_blocks, std::int32_t block_size)
      : block_size_(block_size), users_(static_cast<std::size_t>(num_blocks)) {
    for (std::int32_t block = num_blocks; block-- > 0;) free_.push_back(block);
  }

  std::int32_t block_size() const { return block_size_; }

  std::int32_t take() {
    if (free_.empty()) throw std::runtime_error("the cache is full");
    const std::int32_t block = free_.back();
    free_.pop_back();
    users_[static_cast<std::size_t>(block)] = 1;
    return block;
  }

  /// The blocks that already hold the beginning of a prompt; at least one token
  /// is left out, for somebody has to make the next one.
  std::vector<std::int32_t> reuse(const Tokens& prompt) {
    std::vector<std::int32_t> blocks;
    const auto size = static_cast<std::ptrdiff_t>(prompt.size());
    for (std::ptrdiff_t end = block_size_; end < size; end += block_size_) {
      const auto found = filled_.find(Tokens(prompt.begin(), prompt.begin() + end));
      if (found == filled_.end()) break;
      ++users_[static_cast<std::size_t>(found->second)];
      blocks.push_back(found->second);
    }
    return blocks;
  }

  /// `block` now holds the last tokens of `prefix`, whole blocks of them.
  void filled(const Tokens& prefix, std::int32_t block) { filled_.emplace(prefix, block); }

  void release(const std::vector<std::int32_t>& blocks) {
    for (const std::int32_t block : blocks) {
      if (--users_[static_cast<std::size_t>(block)] > 0) continue;
      for (auto known = filled_.begin(); known != filled_.end();) {
        known = known->second == block ? filled_.erase(known) : std::next(known);
      }
      free_.push_back(block);
    }
  }

 private:
  std::int32_t block_size_;
  std::vector<std::int32_t> users_;
  std::vector<std::int32_t> free_;
  std::map<Tokens, std::int32_t> filled_;
};

/// A prompt, what has been made of it, and where its latents lie.
struct Request {
  Tokens tokens;
  std::vector<std::int32_t> blocks;
  std::int32_t cached = 0;

  std::int64_t slot(std::int32_t token, std::int32_t block_size) const {
    return std::int64_t{blocks[static_cast<std::size_t>(token / block_size)]} * block_size +
           token % block_size;
  }
};
