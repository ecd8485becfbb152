/* Where rows of a tensor lie. */
#pragma once
#include "Elements.cuh"

/** Whether all rows begin at multiples of `count` elements' size. */
DEVICE bool has_pieces(const mla_cuda_rows &rows, int count, int element_bytes) {
  return reinterpret_cast<unsigned long long>(rows.data) % (count * element_bytes) == 0 &&
         rows.token_stride % count == 0 && rows.head_stride % count == 0;
}

/** The address of a row of a head. */
DEVICE unsigned char *row_of(const mla_cuda_rows &rows, int element_bytes, int row, int head) {
  return static_cast<unsigned char *>(rows.data) + (row * rows.token_stride + head * rows.head_stride) * element_bytes;
}
