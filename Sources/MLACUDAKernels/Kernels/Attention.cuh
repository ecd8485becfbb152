/*
 * Attention of 64 queries of one head, over blocks of 64 keys, by mma.sync: FlashAttention-2.
 *
 * Four warps have 16 queries each. Keys and values have one tile each, and are on their way
 * by turns: values arrive during the products of queries and keys, the next block's keys
 * during those of weights and values. With one tile of each instead of two, 192/128 has two
 * blocks on a multiprocessor of sm_80, and 256/256 fits into the 99 KB of sm_120.
 *
 * A row depends on its query and the keys that it sees, to the bit: blocks are counted from
 * its request's first key, and what hides behind a mask or a tail counts as 0.
 *
 * Registers of a thread, of 255: the outputs, V / 2; 32 scores; 8 of fragments; statistics,
 * addresses and the loop are the rest. `make cubins` holds them to this table:
 *
 *             sm_80  sm_90  sm_100  sm_120, the more of both dtypes
 *   192/128   179    178    198     186
 *   192/256   255    255    249     246
 *   256/256   255    255    250     250
 *   128/128   174    174    194     180
 *   128/64    138    139    162     152
 */
#pragma once
#include "AttentionRows.cuh"
#include "Tile.cuh"

template <class Element, int QK, int V>
struct Attention : AttentionRows<Element, MLA_CUDA_TILE_QUERIES, Tile<Element, QK>::rows, V> {
  using Rows = AttentionRows<Element, MLA_CUDA_TILE_QUERIES, Tile<Element, QK>::rows, V>;
  using Rows::a, Rows::tile, Rows::head, Rows::out;
  using Rows::first_row, Rows::key_columns, Rows::value_columns;
  static constexpr int keys_per_block = Tile<Element, QK>::rows;
  static constexpr int shared_bytes = 2 * Tile<Element, QK>::bytes + Tile<Element, V>::bytes;
  static_assert(MLA_CUDA_TILE_QUERIES * V * 4 <= shared_bytes, "outputs, finished");

  const Tile<Element, QK> queries, keys;
  const Tile<Element, V> values;

  DEVICE Attention(const mla_cuda_attention &a, unsigned char *shared)
      : Rows(a),
        queries{shared},
        keys{shared + queries.bytes},
        values{keys.memory + keys.bytes} {}

  DEVICE void run() {
    const int seen_by_all = tile.visible_keys(0);
    const int seen = tile.visible_keys(tile.count - 1);
    // No copy may be under way when outputs take the place of queries.
    if (seen > 0) fetch(queries, a.q, tile.request.query_row + tile.first, tile.count);
    fetch_block(keys, a.k, 0, seen);
    for (int begin = 0; begin < seen; begin += keys_per_block) {
      copies_wait<0>();
      block_barrier();  // These keys are there, and nobody is at the last values.
      fetch_block(values, a.v, begin, seen);
      Accumulator scores[key_columns] = {};
      multiply_queries_and_keys(scores);
      copies_wait<0>();
      const bool is_masked = begin + keys_per_block > seen_by_all;
      // These values are there, and nobody is at the keys.
      const bool are_finite = !block_barrier_or(is_masked && !values.own_are_finite());
      fetch_block(keys, a.k, begin + keys_per_block, seen);
      const float factor = this->scaled(scores);
      if (is_masked) this->mask(scores, begin);
      Weights weights[key_columns / 2];
      this->weigh(scores, factor, weights);
      if (!are_finite) {
        this->add_values_that_are_not_finite(values, begin);
        block_barrier();
        values.clear_own_that_are_not_finite();
        block_barrier();
      }
      multiply_weights_and_values(weights);
    }
    block_barrier();  // Nobody is at keys and values, in whose place outputs go.
    this->finish(queries.memory);
  }

  template <int DIMENSION>
  DEVICE void fetch(const Tile<Element, DIMENSION> &to, const mla_cuda_rows &rows, int row, int count) {
    to.fetch(row_of(rows, 2, row, head), rows.token_stride * 2, count, has_pieces(rows, 8, 2));
    copies_commit();
  }

  /** Keys or values from `begin` on, of those that some query of the tile sees. */
  template <int DIMENSION>
  DEVICE void fetch_block(const Tile<Element, DIMENSION> &to, const mla_cuda_rows &rows, int begin, int seen) {
    if (begin < seen) fetch(to, rows, tile.request.key_row + begin, seen - begin);
  }

  DEVICE void multiply_queries_and_keys(Accumulator (&scores)[key_columns]) const {
#pragma unroll
    for (int d = 0; d < QK / 8; d += 2) {
      u32 query[4];
      load_matrix(query, queries.address(first_row() + lane_id() % 16, d + lane_id() / 16));
#pragma unroll
      for (int column = 0; column < key_columns; column += 2) {
        u32 key[4];
        load_matrix(key, keys.address(column * 8 + lane_id() / 16 * 8 + lane_id() % 8, d + lane_id() / 8 % 2));
        Element::multiply_add(scores[column], query, key[0], key[1]);
        Element::multiply_add(scores[column + 1], query, key[2], key[3]);
      }
    }
  }

  DEVICE void multiply_weights_and_values(const Weights (&weights)[key_columns / 2]) {
#pragma unroll
    for (int key = 0; key < key_columns; key += 2) {
#pragma unroll
      for (int column = 0; column < value_columns; column += 2) {
        u32 value[4];
        load_matrix_transposed(value, values.address(key * 8 + lane_id() % 16, column + lane_id() / 16));
        Element::multiply_add(out[column], weights[key / 2], value[0], value[1]);
        Element::multiply_add(out[column + 1], weights[key / 2], value[2], value[3]);
      }
    }
  }
};
