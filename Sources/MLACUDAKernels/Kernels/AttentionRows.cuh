/*
 * The rows of an attention kernel that one warp has, 16 of a tile's queries: softmax of their
 * scores, block by block, and what is written in the end. Whoever multiplies has accumulators
 * of this form, by whatever instruction.
 */
#pragma once
#include "Batch.cuh"

/** What a lane holds of an accumulator of 16 rows and 8 columns: of rows `lane / 4` and 8
    after it, columns 2 * (lane % 4) and the next. */
using Accumulator = float[4];

/** Two neighbouring accumulators, rounded, are what a lane holds of the left side of a
    product. */
using Weights = u32[4];

/** `KEYS` of a block; outputs of `V` columns. */
template <class Element, int QUERIES, int KEYS, int V> struct AttentionRows {
  static constexpr int key_columns = KEYS / 8;
  static constexpr int value_columns = V / 8;
  /** Where finish() has its outputs. */
  static constexpr int finished_bytes = QUERIES * V * 4;

  const mla_cuda_attention &a;
  const QueryTile tile;
  const int head;

  /** Of this lane's two rows: the softmax so far, whose weights are powers of two relative to
      `reference`; `sum` is of this lane's keys alone. */
  float reference[2] = {-infinity(), -infinity()};
  float sum[2] = {0, 0};
  Accumulator out[value_columns] = {};

  DEVICE explicit AttentionRows(const mla_cuda_attention &a) : a(a), tile(a, block_x(), QUERIES), head(block_y()) {}

  /** Of this warp's 16 queries. */
  static DEVICE int first_row() { return thread_id() / 32 * 16; }
  /** A row of this lane, counted from the tile's first. */
  static DEVICE int row(int half) { return first_row() + lane_id() / 4 + 8 * half; }
  static DEVICE int column_pair() { return lane_id() % 4 * 2; }

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
        if (begin + column * 8 + column_pair() + e % 2 >= seen[e / 2]) scores[column][e] = -infinity();
  }

  /** Scores become weights; outputs and sums so far are brought to the new reference. */
  DEVICE void weigh(Accumulator (&scores)[key_columns], float factor, Weights (&weights)[key_columns / 2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float largest = -infinity();
#pragma unroll
      for (int column = 0; column < key_columns; ++column)
        largest = fmaxf(largest, fmaxf(scores[column][2 * half], scores[column][2 * half + 1]));
      largest = fmaxf(largest, shuffle_xor(largest, 1));
      largest = fmaxf(largest, shuffle_xor(largest, 2));
      const float next = fmaxf(reference[half], fmaf(largest, factor, -Element::weight_exponent));
      // While a row has seen no key, -inf - -inf must not become NaN.
      const float base = next == -infinity() ? 0 : next;
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

  /** A weight of 0 times infinity or NaN is NaN: of a mask's rows that do not see such a
      value, too. They are added here where they are seen, before 0 takes their place. */
  template <class Values> DEVICE void add_values_that_are_not_finite(const Values &values, int begin) {
    const int seen[2] = {tile.visible_keys(row(0)), tile.visible_keys(row(1))};
#pragma unroll 1
    for (int key = 0; key < KEYS; ++key) {
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
  }

  /** Writes rows and lse. Outputs lie scattered over the lanes: they go through shared memory,
      a warp's 16 rows of fp32, so that a lane has eight neighbours to write at once. */
  DEVICE void finish(unsigned char *shared) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float total = sum[half];
      total += shuffle_xor(total, 1);
      total += shuffle_xor(total, 2);
      // A score that is finite, but not times the scale, has left weights of 0.
      if (reference[half] == infinity()) total = not_a_number();
      const float inverse = 1 / total;
#pragma unroll
      for (int column = 0; column < value_columns; ++column) {
        float pair[2];
        for (int e = 0; e < 2; ++e) pair[e] = total == 0 ? 0 : out[column][2 * half + e] * inverse;
        store_shared(finished(shared, row(half), column * 2 + column_pair() / 4) + column_pair() % 4 * 4,
                     Bytes8{{bits_of(pair[0]), bits_of(pair[1])}});
      }
      if (row(half) < tile.count && a.lse.data && column_pair() == 0) write_lse(half, total);
    }
    warp_barrier();
    switch (a.out_type) {
      case DTYPE_FP32: return write_rows<FP32>(shared);
      case DTYPE_FP16: return write_rows<FP16>(shared);
      case DTYPE_BF16: return write_rows<BF16>(shared);
      case DTYPE_FP8_E4M3: return write_rows<FP8>(shared);
    }
  }

  /** Where four outputs of a row are. Neighbouring rows have them in different banks. */
  static DEVICE unsigned char *finished(unsigned char *shared, int row, int piece) {
    return shared + row * V * 4 + ((piece ^ (row & 7)) << 4);
  }

  DEVICE void write_lse(int half, float total) const {
    // The logarithm is of a number near 1, which a large one would have rounded off.
    const float log2_sum = log2_approx(total / Element::weight_scale);
    const float lse = (reference[half] + Element::weight_exponent + log2_sum) * ln_2;
    const int token = tile.request.query_row + tile.first + row(half);
    // Without a weight a logarithm of 0.
    store_global(a.lse.data + head * a.lse.head_stride + token, lse);
  }

  template <class Target> DEVICE void write_rows(unsigned char *shared) const {
    constexpr int count = 8, element_bytes = sizeof(typename Target::Bits);
    const bool at_once = has_pieces(a.out, count, element_bytes);
#pragma unroll 1
    for (int i = lane_id(); i < 16 * V / count; i += 32) {
      const int row = first_row() + i / (V / count), d = i % (V / count) * count;
      if (row >= tile.count) break;
      float values[count];
      for (int part = 0; part < 2; ++part) {
        const Bytes16 four = load_shared<Bytes16>(finished(shared, row, d / 4 + part));
        for (int e = 0; e < 4; ++e) values[part * 4 + e] = float_of(four.words[e]) * a.out_multiplier;
      }
      unsigned char *target = row_of(a.out, element_bytes, tile.request.query_row + tile.first + row, head);
      store_rounded<Target>(target + d * element_bytes, values, at_once);
    }
  }
};
