/*
 * 64 rows of one head in shared memory, for ldmatrix.
 *
 * A row's pieces of 16 bytes are permuted by the last three bits of its number: eight rows'
 * pieces of one column, which ldmatrix reads at a time, then lie in different banks, as do
 * eight pieces of one row, which are written at a time.
 */
#pragma once
#include "Rows.cuh"

template <class Element, int DIMENSION> struct Tile {
  static constexpr int rows = 64;
  static constexpr int row_bytes = DIMENSION * 2;
  static constexpr int bytes = rows * row_bytes;
  static constexpr int threads = 128;
  /** A thread copies one of eight neighbouring pieces, of every 16th row. */
  static constexpr int pieces = DIMENSION / 8 / 8;
  static constexpr int row_step = threads / 8;

  unsigned char *memory;

  /** Of the piece of 8 elements that begins a row's column 8 * `piece`. */
  DEVICE unsigned char *address(int row, int piece) const {
    return memory + row * row_bytes + ((piece ^ (row & 7)) << 4);
  }

  /** Begins to copy `count` rows from `first` on; the others become 0, so that whatever lies
      behind them, NaN maybe, has no part in what they are multiplied with. */
  DEVICE void fetch(const unsigned char *first, long long stride_bytes, int count, bool has_pieces_of_16) const {
    const int own_row = thread_id() / 8, own_piece = thread_id() % 8;
    const unsigned char *from = first + own_row * stride_bytes + own_piece * 16;
    if (!has_pieces_of_16) return gather(from, stride_bytes, count);
    unsigned char *to = address(own_row, own_piece);
#pragma unroll
    for (int row = 0; row < rows; row += row_step) {
      const bool is_there = own_row + row < count;
#pragma unroll
      for (int piece = 0; piece < pieces; ++piece)
        copy_async_16(to + row * row_bytes + piece * 128, is_there ? from + row * stride_bytes + piece * 128 : first,
                      is_there ? 16 : 0);
    }
  }

  /** Whether what this thread has copied, and waited for, is finite. */
  DEVICE bool own_are_finite() const {
    bool all = true;
#pragma unroll 1
    for (int i = 0; i < own_pieces; ++i) {
      const Bytes16 piece = load_shared<Bytes16>(own(i));
      for (u32 pair : piece.words) all = all && Element::is_finite(pair) && Element::is_finite(pair >> 16);
    }
    return all;
  }

  /** Puts 0 in place of what is not. */
  DEVICE void clear_own_that_are_not_finite() const {
#pragma unroll 1
    for (int i = 0; i < own_pieces; ++i) {
      Bytes16 piece = load_shared<Bytes16>(own(i));
      for (u32 &pair : piece.words) {
        if (!Element::is_finite(pair)) pair &= 0xffff0000;
        if (!Element::is_finite(pair >> 16)) pair &= 0xffff;
      }
      store_shared(own(i), piece);
    }
  }

private:
  static constexpr int own_pieces = rows / row_step * pieces;

  DEVICE unsigned char *own(int i) const {
    return address(thread_id() / 8 + i / pieces * row_step, thread_id() % 8 + i % pieces * 8);
  }

  /** Element by element, at once. */
  DEVICE void gather(const unsigned char *from, long long stride_bytes, int count) const {
#pragma unroll 1
    for (int i = 0; i < own_pieces; ++i) {
      const int row = i / pieces * row_step;
      const unsigned char *source = from + row * stride_bytes + i % pieces * 128;
      Bytes16 piece = {};
      if (thread_id() / 8 + row < count)
        for (u32 &pair : piece.words) {
          pair = load_global<u16>(source) | static_cast<u32>(load_global<u16>(source + 2)) << 16;
          source += 4;
        }
      store_shared(own(i), piece);
    }
  }
};
