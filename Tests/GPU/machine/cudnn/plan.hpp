// Attention or a product as it was described: what a plan is made of, serialised and made again from.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "descriptor.hpp"

namespace cudnn {

struct Tensor {
  /// 0: there is none.
  std::int64_t uid;
  Extents dimensions, strides;
  std::int64_t alignment;
  /// Of the offsets, which count rows of `multiplier` elements; 0: it is not ragged.
  std::int64_t ragged_uid, multiplier;
  int type;
  bool is_virtual, is_by_value;
};

/// C [1, rows, columns] of A [1, rows, depth] and B [1, depth, columns].
struct Product {
  Tensor a, b, c;
};

struct Plan {
  /// Of the tensors there is this then, and nothing of attention.
  bool is_product;
  Product product;
  Tensor q, k, v, out, stats, scale, mask_value, query_offsets, key_offsets;
  /// The mask's diagonal begins at the first query and key; or ends at the last of both.
  bool is_causal, is_bottom_right;
  bool takes_overrides;
  std::size_t version;
  /// Of the GPU, times 10.
  int capability;

  /// Of all sequences that there may be.
  std::size_t workspace_bytes() const {
    // Where the depth is worked on in parts, their sums.
    if (is_product) return capability < 90 && product.a.dimensions[2] >= 128 ? 1 << 20 : 0;
    // A descriptor of 256 bytes for each, as on sm_90.
    return capability < 90 ? 0 : static_cast<std::size_t>(std::max<std::int64_t>(q.dimensions[0], 64)) * 256 + 1024;
  }
};

/// - Parameter rank: of its dimensions, behind which there are ones.
Tensor tensor_of(const Descriptor& owner, int name, std::size_t rank = 4);
/// Makes a descriptor final, once what it says is right.
void finalize(Descriptor& descriptor);
std::string serialised(const Plan& plan);

extern long compilations, loads;

}  // namespace cudnn
