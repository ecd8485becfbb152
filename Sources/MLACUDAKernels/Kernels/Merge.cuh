/*
 * Merging the attention of the same tokens to two disjoint sets of keys, as the CPU kernels do
 * (SharedKernels/Rows/MergeRows.swift). A warp has a row at a time; what a lane writes it has
 * read itself, so that a result may take the place of a side.
 */
#pragma once
#include "Rows.cuh"

/** The weight of each side in a row, and the row's own lse. */
struct MergeWeights {
  float prefix, suffix, lse;

  DEVICE MergeWeights(const mla_cuda_merge &a, int token, int head) {
    const float first = token < a.tokens_with_context ? lse_of(a.prefix_lse, token, head) : -infinity();
    const float second = lse_of(a.suffix_lse, token, head);
    // NaN is not the larger: it comes in again with its side's weight.
    const float largest = second > first ? second : first;
    const float of_first = weight(first, largest), of_second = weight(second, largest);
    const float sum = of_first + of_second;
    const float inverse = sum == 0 ? 0 : 1 / sum;
    prefix = of_first * inverse;
    suffix = of_second * inverse;
    // Of a side alone it is that side's own, to the bit.
    lse = sum == 0 ? -infinity() : sum == 1 ? largest : largest + log2_approx(sum) * ln_2;
  }

private:
  static DEVICE float lse_of(const mla_cuda_lse &side, int token, int head) {
    const float lse = load_global<float>(side.data + head * side.head_stride + token);
    return lse == infinity() ? -infinity() : lse;
  }

  static DEVICE float weight(float lse, float largest) {
    return lse == -infinity() ? 0 : exp2_approx((lse - largest) * log2_e);
  }
};

template <class Element, int COUNT>
DEVICE void add_side(float (&sum)[COUNT], const mla_cuda_rows &rows, int token, int head, int d, float weight) {
  // A side without keys has no values either: what lies there may be NaN.
  if (weight == 0) return;
  constexpr int element_bytes = sizeof(typename Element::Bits);
  const auto piece = load_global<Piece<Element, COUNT>>(row_of(rows, element_bytes, token, head) + d * element_bytes);
#pragma unroll
  for (int i = 0; i < COUNT; ++i) sum[i] = fmaf(Element::value(piece.elements[i]), weight, sum[i]);
}

template <class Element, class Target, int COUNT>
DEVICE void merge_row(const mla_cuda_merge &a, int token, int head, const MergeWeights &weights) {
  constexpr int target_bytes = sizeof(typename Target::Bits);
#pragma unroll 1
  for (int d = lane_id() * COUNT; d < a.dimension; d += 32 * COUNT) {
    float sum[COUNT] = {};
    add_side<Element>(sum, a.prefix, token, head, d, weights.prefix);
    add_side<Element>(sum, a.suffix, token, head, d, weights.suffix);
#pragma unroll
    for (int i = 0; i < COUNT; ++i) sum[i] *= a.out_multiplier;
    store_rounded<Target>(row_of(a.out, target_bytes, token, head) + d * target_bytes, sum, true);
  }
}

template <class Element, class Target> DEVICE void merge_rows(const mla_cuda_merge &a) {
  constexpr int warps = MLA_CUDA_MERGE_THREADS / 32;
  constexpr int count = 16 / sizeof(typename Element::Bits);
  const bool in_pieces = a.dimension % count == 0 && has_pieces(a.prefix, count, sizeof(typename Element::Bits)) &&
                         has_pieces(a.suffix, count, sizeof(typename Element::Bits)) &&
                         has_pieces(a.out, count, sizeof(typename Target::Bits));
  const int head = block_y();
#pragma unroll 1
  for (int row = thread_id() / 32; row < MLA_CUDA_MERGE_TOKENS; row += warps) {
    const int token = block_x() * MLA_CUDA_MERGE_TOKENS + row;
    if (token >= a.token_count) return;
    const MergeWeights weights(a, token, head);
    if (in_pieces)
      merge_row<Element, Target, count>(a, token, head, weights);
    else
      merge_row<Element, Target, 1>(a, token, head, weights);
    // All lanes have read what lies where this is written.
    warp_barrier();
    if (a.out_lse.data && lane_id() == 0)
      store_global(a.out_lse.data + head * a.out_lse.head_stride + token, weights.lse);
  }
}

template <class Element> DEVICE void merge(const mla_cuda_merge &a) {
  switch (a.out_type) {
    case DTYPE_FP32: return merge_rows<Element, FP32>(a);
    case DTYPE_FP16: return merge_rows<Element, FP16>(a);
    case DTYPE_BF16: return merge_rows<Element, BF16>(a);
    case DTYPE_FP8_E4M3: return merge_rows<Element, FP8>(a);
  }
}
