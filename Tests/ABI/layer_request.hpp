// A layer's arguments for one request.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "support.hpp"

namespace test {

/// New tokens on a context that lies in a cache from its first slot on.
struct LayerRequest {
  /// `latents` and `k_pe` are those of the new tokens; without rope there is no `k_pe`.
  LayerRequest(const Array& q, const mla::tensor& latents, const mla::tensor* k_pe, const Array& cache,
               std::int64_t context, const Array& out)
      : query_start_loc{0, static_cast<std::int32_t>(q.size(0))},
        context_lens{static_cast<std::int32_t>(context)},
        block_table(numbered<std::int32_t>(cache.size(0))) {
    args.num_requests = 1;
    args.query_start_loc = query_start_loc.data(), args.context_lens = context_lens.data();
    args.q = &q.view(), args.kv_c_normed = &latents, args.k_pe = k_pe;
    args.kv_cache = &cache.view(), args.block_table = block_table.data();
    args.block_table_stride = cache.size(0), args.max_blocks = static_cast<std::int32_t>(cache.size(0));
    args.out = &out.view();
  }
  LayerRequest(const LayerRequest&) = delete;

  Offsets query_start_loc, context_lens, block_table;
  mla_layer_forward_args args = MLA_LAYER_FORWARD_ARGS_INIT;
};

}  // namespace test
