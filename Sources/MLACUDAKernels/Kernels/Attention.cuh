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
#include "Batch.cuh"
#include "Tile.cuh"

/** What a lane holds of an accumulator of 16 rows and 8 columns: of rows `lane / 4` and 8
    after it, columns 2 * (lane % 4) and the next. */
using Accumulator = float[4];

/** Two neighbouring accumulators, rounded, are what a lane holds of the left side of a
    product. */
using Weights = u32[4];

template <class Element, int QK, int V> struct Attention {
  static constexpr int keys_per_block = Tile<Element, QK>::rows;
  static constexpr int key_columns = keys_per_block / 8;
  static constexpr int value_columns = V / 8;
  static constexpr int shared_bytes = 2 * Tile<Element, QK>::bytes + Tile<Element, V>::bytes;
  static_assert(MLA_CUDA_TILE_QUERIES * V * 4 <= shared_bytes, "outputs, finished");

  const mla_cuda_attention &a;
  const QueryTile tile;
  const int head;
  const Tile<Element, QK> queries, keys;
  const Tile<Element, V> values;

  /** Of this lane's two rows: the softmax so far, whose weights are powers of two relative to
      `reference`; `sum` is of this lane's keys alone. */
  float reference[2] = {-infinity, -infinity};
  float sum[2] = {0, 0};
  Accumulator out[value_columns] = {};

  DEVICE Attention(const mla_cuda_attention &a, unsigned char *shared)
      : a(a),
        tile(a, block_x()),
        head(block_y()),
        queries{shared},
        keys{shared + queries.bytes},
        values{keys.memory + keys.bytes} {}

  /** Of this warp's 16 queries. */
  static DEVICE int first_row() { return thread_id() / 32 * 16; }
  /** A row of this lane, counted from the tile's first. */
  static DEVICE int row(int half) { return first_row() + lane_id() / 4 + 8 * half; }
  static DEVICE int column_pair() { return lane_id() % 4 * 2; }

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
      const float factor = scaled(scores);
      if (is_masked) mask(scores, begin);
      Weights weights[key_columns / 2];
      weigh(scores, factor, weights);
      if (!are_finite) set_apart_values_that_are_not_finite(begin);
      multiply_weights_and_values(weights);
    }
    finish();
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

  /** The factor that scores are still to be multiplied by, which is above 0: below, the
      largest would not be that of the products. */
  DEVICE float scaled(Accumulator (&scores)[key_columns]) const {
    if (a.scale_log2 > 0) return a.scale_log2;
#pragma unroll
    for (int column = 0; column < key_columns; ++column)
#pragma unroll
      for (int e = 0; e < 4; ++e) scores[column][e] *= a.scale_log2;
    return 1;
  }

  DEVICE void mask(Accumulator (&scores)[key_columns], int begin) const {
    const int seen[2] = {tile.visible_keys(row(0)), tile.visible_keys(row(1))};
#pragma unroll
    for (int column = 0; column < key_columns; ++column)
#pragma unroll
      for (int e = 0; e < 4; ++e)
        if (begin + column * 8 + column_pair() + e % 2 >= seen[e / 2]) scores[column][e] = -infinity;
  }

  /** Scores become weights; outputs and sums so far are brought to the new reference. */
  DEVICE void weigh(Accumulator (&scores)[key_columns], float factor, Weights (&weights)[key_columns / 2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float largest = -infinity;
#pragma unroll
      for (int column = 0; column < key_columns; ++column)
        largest = fmaxf(largest, fmaxf(scores[column][2 * half], scores[column][2 * half + 1]));
      largest = fmaxf(largest, shuffle_xor(largest, 1));
      largest = fmaxf(largest, shuffle_xor(largest, 2));
      const float next = fmaxf(reference[half], fmaf(largest, factor, -Element::weight_exponent));
      // While a row has seen no key, -inf - -inf must not become NaN.
      const float base = next == -infinity ? 0 : next;
      const float shrink = exp2_approx(reference[half] - base);
      reference[half] = next;
      float added = 0;
#pragma unroll
      for (int column = 0; column < key_columns; ++column)
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; ++e) {
          scores[column][e] = exp2_approx(fmaf(scores[column][e], factor, -base));
          added += scores[column][e];
        }
      sum[half] = fmaf(sum[half], shrink, added);
#pragma unroll
      for (int column = 0; column < value_columns; ++column) {
        out[column][2 * half] *= shrink;
        out[column][2 * half + 1] *= shrink;
      }
    }
#pragma unroll
    for (int column = 0; column < key_columns; ++column)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        weights[column / 2][column % 2 * 2 + half] = Element::pack(scores[column][2 * half], scores[column][2 * half + 1]);
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

  /** A weight of 0 times infinity or NaN is NaN: of a mask's rows that do not see such a
      value, too. They are added here where they are seen, and 0 takes their place. */
  DEVICE void set_apart_values_that_are_not_finite(int begin) {
    const int seen[2] = {tile.visible_keys(row(0)), tile.visible_keys(row(1))};
#pragma unroll 1
    for (int key = 0; key < keys_per_block; ++key) {
#pragma unroll
      for (int column = 0; column < value_columns; ++column) {
        const u32 pair = load_shared<u32>(values.address(key, column) + column_pair() * 2);
        if (Element::is_finite(pair) && Element::is_finite(pair >> 16)) continue;
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const u16 bits = e % 2 ? pair >> 16 : pair;
          if (!Element::is_finite(bits) && begin + key < seen[e / 2]) out[column][e] += Element::value(bits);
        }
      }
    }
    block_barrier();
    values.clear_own_that_are_not_finite();
    block_barrier();
  }

  /** Writes rows and lse. Outputs lie scattered over the lanes: they go through shared memory,
      a warp's 16 rows of fp32, so that a lane has eight neighbours to write at once. */
  DEVICE void finish() {
    block_barrier();  // Nobody is at keys and values, in whose place they go.
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float total = sum[half];
      total += shuffle_xor(total, 1);
      total += shuffle_xor(total, 2);
      // A score that is finite, but not times the scale, has left weights of 0.
      if (reference[half] == infinity) total = not_a_number;
      const float inverse = 1 / total;
#pragma unroll
      for (int column = 0; column < value_columns; ++column) {
        float pair[2];
        for (int e = 0; e < 2; ++e) pair[e] = total == 0 ? 0 : out[column][2 * half + e] * inverse;
        store_shared(finished(row(half), column * 2 + column_pair() / 4) + column_pair() % 4 * 4,
                     Bytes8{{bits_of(pair[0]), bits_of(pair[1])}});
      }
      if (row(half) < tile.count && a.lse.data && column_pair() == 0) write_lse(half, total);
    }
    warp_barrier();
    if (a.out_type == MLA_CUDA_OUT_FP8_E4M3)
      write_rows<FP8>();
    else
      write_rows<Element>();
  }

  /** Where four outputs of a row are. Neighbouring rows have them in different banks. */
  DEVICE unsigned char *finished(int row, int piece) const {
    return queries.memory + row * V * 4 + ((piece ^ (row & 7)) << 4);
  }

  DEVICE void write_lse(int half, float total) const {
    // The logarithm is of a number near 1, which a large one would have rounded off.
    const float log2_sum = log2_approx(total / Element::weight_scale);
    const float lse = (reference[half] + Element::weight_exponent + log2_sum) * ln_2;
    const int token = tile.request.query_row + tile.first + row(half);
    store_global(a.lse.data + head * a.lse.head_stride + token, total == 0 ? -infinity : lse);
  }

  template <class Target> DEVICE void write_rows() const {
    constexpr int count = 8, element_bytes = sizeof(typename Target::Bits);
    const bool at_once = has_pieces(a.out, count, element_bytes);
#pragma unroll 1
    for (int i = lane_id(); i < 16 * V / count; i += 32) {
      const int row = first_row() + i / (V / count), d = i % (V / count) * count;
      if (row >= tile.count) break;
      float values[count];
      for (int part = 0; part < 2; ++part) {
        const Bytes16 four = load_shared<Bytes16>(finished(row, d / 4 + part));
        for (int e = 0; e < 4; ++e) values[part * 4 + e] = float_of(four.words[e]) * a.out_multiplier;
      }
      unsigned char *target = row_of(a.out, element_bytes, tile.request.query_row + tile.first + row, head);
      store_rounded<Target>(target + d * element_bytes, values, at_once);
    }
  }
};
