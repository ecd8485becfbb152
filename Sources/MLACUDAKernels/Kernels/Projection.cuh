/*
 * Latents to keys and values: a tile of 128 rows and 128 columns of
 *
 *     out [rows, columns] = in [rows, depth] * weights [columns, depth] transposed
 *
 * by mma.sync. Four warps have 64 x 64 of it each:
 *
 *                   64 | 64 columns
 *     64 rows   warp 0 | warp 1       depth in steps of 64: the next one is copied into the
 *     64 rows   warp 2 | warp 3       other of two stages while this one is multiplied
 *
 * so that a pair of fragments, 8 ldmatrix, feeds 32 products; two blocks have room on a
 * multiprocessor of sm_80. An output depends on its row and its column, to the bit: products
 * are added from depth 0 on.
 *
 * Registers of a thread, of 255: 128 sums, 20 of fragments; up to 246 on sm_80. Error of a sum, before it is
 * rounded to the inputs' dtype: (depth + 1) 2^-24 of the sum of its products' sizes.
 */
#pragma once
#include "Tile.cuh"

template <class Element> struct Projection {
  using Part = Tile<Element, 64>;
  static constexpr int depth_step = 64;
  static constexpr int parts = MLA_CUDA_PROJECTION_TILE / Part::rows;
  static constexpr int side_bytes = parts * Part::bytes;
  static constexpr int stage_bytes = 2 * side_bytes;
  static_assert(MLA_CUDA_PROJECTION_SHARED == 2 * stage_bytes, "two stages");
  /** Of 16 rows and of 8 columns, in a warp's 64. */
  static constexpr int row_groups = 4, column_groups = 8;

  const mla_cuda_projection &a;
  unsigned char *const shared;
  const int first_row, first_column;
  float sums[row_groups][column_groups][4] = {};

  DEVICE Projection(const mla_cuda_projection &a, unsigned char *shared)
      : a(a),
        shared(shared),
        first_row(block_x() * MLA_CUDA_PROJECTION_TILE),
        first_column(block_y() * MLA_CUDA_PROJECTION_TILE) {}

  DEVICE void run() {
    fetch(0);
#pragma unroll 1
    for (int depth = 0; depth < a.depth; depth += depth_step) {
      copies_wait<0>();
      block_barrier();  // This stage is there, and nobody is at the other.
      if (depth + depth_step < a.depth) fetch(depth + depth_step);
      multiply(depth);
    }
    block_barrier();  // Nobody is at the stages, in whose place outputs go.
    write();
  }

private:
  static DEVICE int warp() { return thread_id() / 32; }

  /** 64 rows of one side from `depth` on: `in` is side 0, `weights` are side 1. */
  DEVICE Part part(int depth, int side, int number) const {
    return {shared + depth / depth_step % 2 * stage_bytes + side * side_bytes + number * Part::bytes};
  }

  DEVICE void fetch(int depth) const {
    fetch_side(depth, 0, a.in, first_row, a.row_count);
    fetch_side(depth, 1, a.weights, first_column, a.column_count);
    copies_commit();
  }

  DEVICE void fetch_side(int depth, int side, const mla_cuda_rows &rows, int first, int count) const {
    const bool at_once = has_pieces(rows, 8, 2);
#pragma unroll
    for (int i = 0; i < parts; ++i) {
      const int begin = first + i * Part::rows;
      // Of a part behind the last row nothing is read.
      const unsigned char *from = row_of(rows, 2, begin < count ? begin : 0, 0) + depth * 2;
      part(depth, side, i).fetch(from, rows.token_stride * 2, count - begin, at_once);
    }
  }

  DEVICE void multiply(int depth) {
    const Part in = part(depth, 0, warp() / 2), weights = part(depth, 1, warp() % 2);
#pragma unroll
    for (int piece = 0; piece < depth_step / 8; piece += 2) {
      u32 rows[row_groups][4];
#pragma unroll
      for (int i = 0; i < row_groups; ++i)
        load_matrix(rows[i], in.address(i * 16 + lane_id() % 16, piece + lane_id() / 16));
#pragma unroll
      for (int j = 0; j < column_groups; j += 2) {
        u32 columns[4];
        load_matrix(columns, weights.address(j * 8 + lane_id() / 16 * 8 + lane_id() % 8, piece + lane_id() / 8 % 2));
#pragma unroll
        for (int i = 0; i < row_groups; ++i) {
          Element::multiply_add(sums[i][j], rows[i], columns[0], columns[1]);
          Element::multiply_add(sums[i][j + 1], rows[i], columns[2], columns[3]);
        }
      }
    }
  }

  /** Sums lie scattered over the lanes: they go through shared memory, a part for each warp,
      so that a lane has eight neighbours to write at once. */
  DEVICE void write() const {
    const Part part{shared + warp() * Part::bytes};
#pragma unroll
    for (int i = 0; i < row_groups; ++i)
#pragma unroll
      for (int j = 0; j < column_groups; ++j)
#pragma unroll
        for (int half = 0; half < 2; ++half)
          store_shared(part.address(i * 16 + lane_id() / 4 + half * 8, j) + lane_id() % 4 * 4,
                       Element::pack(sums[i][j][2 * half], sums[i][j][2 * half + 1]));
    warp_barrier();
    const int row = first_row + warp() / 2 * 64, column = first_column + warp() % 2 * 64 + lane_id() % 8 * 8;
    if (column >= a.column_count) return;
#pragma unroll 1
    for (int i = lane_id() / 8; i < 64 && row + i < a.row_count; i += 4)
      store_global(row_of(a.out, 2, row + i, 0) + column * 2, load_shared<Bytes16>(part.address(i, lane_id() % 8)));
  }
};
