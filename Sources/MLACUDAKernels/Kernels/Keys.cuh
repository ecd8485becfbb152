/*
 * A layer's keys: each head's own part, which kv_b_proj has made, beside the rotary part that
 * all heads of a token share. Values need no copy: they are read where kv_b_proj has put them.
 */
#pragma once
#include "Rows.cuh"

/** All heads of one token, by a block: 16 bytes a thread, heads one behind the other. */
DEVICE void concat_keys(const mla_cuda_keys &a) {
  constexpr int count = 8, element_bytes = 2;
  const int token = block_x();
  const int own = a.nope_width / count, pieces = own + a.rope_width / count;
#pragma unroll 1
  for (int i = thread_id(); i < a.head_count * pieces; i += MLA_CUDA_KEYS_THREADS) {
    const int head = i / pieces, piece = i % pieces;
    const unsigned char *from = piece < own ? row_of(a.nope, element_bytes, token, head) + piece * 16
                                            : row_of(a.rope, element_bytes, token, 0) + (piece - own) * 16;
    store_global(row_of(a.keys, element_bytes, token, head) + piece * 16, load_global<Bytes16>(from));
  }
}
