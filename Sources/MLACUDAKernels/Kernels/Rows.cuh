/* Where rows of a tensor lie. */
#pragma once
#include "Elements.cuh"

/** Whether all rows begin at multiples of `count` elements' size. */
DEVICE bool has_pieces(const mla_cuda_rows &rows, int count, int element_bytes) {
  return reinterpret_cast<unsigned long long>(rows.data) % (count * element_bytes) == 0 &&
         rows.token_stride % count == 0 && rows.head_stride % count == 0;
}

/** Of `count` ranges side by side, which begin where `begin` says, the one with a position in it:
    the last that begins no later, since an empty one begins where the next does. Whatever they
    say, it is one of them. */
template <class Position, class Begin> DEVICE int range_at(Position position, int count, const Begin &begin) {
  int found = 0, end = count;
#pragma unroll 1
  while (end - found > 1) {
    const int middle = (found + end) / 2;
    if (begin(middle) <= position)
      found = middle;
    else
      end = middle;
  }
  return found;
}

/** The address of a row of a head. */
DEVICE unsigned char *row_of(const mla_cuda_rows &rows, int element_bytes, int row, int head) {
  return static_cast<unsigned char *>(rows.data) + (row * rows.token_stride + head * rows.head_stride) * element_bytes;
}
