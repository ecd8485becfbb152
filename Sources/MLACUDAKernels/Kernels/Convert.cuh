/* Rows of one dtype as another's, times a number. */
#pragma once
#include "Rows.cuh"

template <class Element, class Target> DEVICE void convert_row(const mla_cuda_convert &a) {
  using Bits = typename Element::Bits;
  // More at a time are a kernel twice as long: rounding to fp8 is code for each.
  constexpr int count = 4, target_bytes = sizeof(typename Target::Bits);
  const unsigned char *from = row_of(a.from, sizeof(Bits), block_x(), block_y());
  unsigned char *to = row_of(a.to, target_bytes, block_x(), block_y());
  const bool at_once = has_pieces(a.from, count, sizeof(Bits)) && has_pieces(a.to, count, target_bytes);
#pragma unroll 1
  for (int d = thread_id() * count; d < a.width; d += MLA_CUDA_CONVERT_THREADS * count) {
    if (at_once && d + count <= a.width) {
      const auto piece = load_global<Piece<Element, count>>(from + d * sizeof(Bits));
      float values[count];
#pragma unroll
      for (int i = 0; i < count; ++i) values[i] = Element::value(piece.elements[i]) * a.multiplier;
      store_rounded<Target>(to + d * target_bytes, values, true);
    } else {
      for (int i = d; i < d + count && i < a.width; ++i)
        store_global(to + i * target_bytes,
                     Target::bits(Element::value(load_global<Bits>(from + i * sizeof(Bits))) * a.multiplier));
    }
  }
}

template <class Element> DEVICE void convert(const mla_cuda_convert &a) {
  switch (a.to_type) {
    case DTYPE_FP32: return convert_row<Element, FP32>(a);
    case DTYPE_FP16: return convert_row<Element, FP16>(a);
    case DTYPE_BF16: return convert_row<Element, BF16>(a);
    case DTYPE_FP8_E4M3: return convert_row<Element, FP8>(a);
  }
}
