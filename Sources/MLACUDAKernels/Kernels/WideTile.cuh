/*
 * 128 rows of one head in shared memory, for products of warpgroups: columns of 64 elements
 * after one another, rows of 128 bytes in them, swizzled as tensor copies leave them.
 */
#pragma once
#include "Instructions90.cuh"
#include "Rows.cuh"

template <class Element, int DIMENSION> struct WideTile {
  static constexpr int rows = MLA_CUDA_WIDE_TILE;
  static constexpr int column_elements = 64;
  static constexpr int column_bytes = rows * 128;
  static constexpr int bytes = DIMENSION / column_elements * column_bytes;
  /** Of 16 bytes. */
  static constexpr int pieces = rows * DIMENSION / 8;

  unsigned char *memory;

  /** Of the piece of 8 elements that begins a row's column 8 * `piece`. */
  DEVICE unsigned char *address(int row, int piece) const {
    return memory + piece / 8 * column_bytes + row * 128 + ((piece % 8 ^ row % 8) << 4);
  }
  /** Of all of them, in any order. */
  DEVICE unsigned char *address(int index) const { return address(index / (DIMENSION / 8), index % (DIMENSION / 8)); }

  /** Begins to copy the rows from `row` on, of which the mbarrier is to expect `bytes`. */
  DEVICE void fetch(const mla_cuda_tensor_map &map, u64 *mbarrier, int row, int head) const {
    mbarrier_arrive_expect(mbarrier, bytes);
    for (int column = 0; column < DIMENSION / column_elements; ++column)
      copy_tile(memory + column * column_bytes, &map, mbarrier, column * column_elements, head, row);
  }

  /** From `row` on, 16 elements from `d` on: a row of either side of a product. */
  DEVICE u64 across(int row, int d) const {
    const u32 at = shared_address(memory) + d / column_elements * column_bytes + row * 128 + d % column_elements * 2;
    return matrix_descriptor(at, 16, 1024);
  }
  /** 16 rows from `row` on: what a product's right side is in sums over rows. */
  DEVICE u64 along(int row) const {
    return matrix_descriptor(shared_address(memory) + row * 128, column_bytes, 1024);
  }
};
