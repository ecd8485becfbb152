/* Which rows a block of the grid works on, and which keys they see. */
#pragma once
#include "Rows.cuh"

/** Up to `size` queries of one request. */
struct QueryTile {
  mla_cuda_request request;
  bool is_causal;
  /** Counted from the request's first. */
  int first;
  int count;

  DEVICE QueryTile(const mla_cuda_attention &a, int tile, int size)
      : request(a.requests[range_at(tile, a.request_count, [&a](int i) { return a.requests[i].first_tile; })]),
        is_causal(a.is_causal) {
    const int tiles = (request.query_count + size - 1) / size;
    first = (tiles - 1 - (tile - request.first_tile)) * size;
    count = min(size, request.query_count - first);
  }

  /** How many of the request's keys a query of the tile sees; one behind the tile's last as
      many as that. */
  DEVICE int visible_keys(int query) const {
    if (!is_causal) return request.key_count;
    const int behind = request.query_count - 1 - (first + min(query, count - 1));
    return max(0, request.key_count - behind);
  }

  static DEVICE int min(int a, int b) { return a < b ? a : b; }
  static DEVICE int max(int a, int b) { return a > b ? a : b; }
};
