/* Tokens out of a paged cache, as the CPU does it (MLACore/Layer/GatherCache.swift), and what a
   layer's keys are made of (MLACore/Layer/LatentGather.swift). A warp has a token. */
#pragma once
#include "Cache.cuh"

/** Rows of a token's, read by a warp. */
template <class Element> struct RowReader {
  /** `scales`: of groups; NULL: `multiplier` is for all that are fp8. */
  static DEVICE void read(int dtype, int width, const unsigned char *from, unsigned char *to,
                          const unsigned char *scales, float multiplier) {
    switch (dtype) {
      case DTYPE_FP32: return read_from<FP32>(width, from, to, scales, multiplier);
      case DTYPE_FP16: return read_from<FP16>(width, from, to, scales, multiplier);
      case DTYPE_BF16: return read_from<BF16>(width, from, to, scales, multiplier);
      case DTYPE_FP8_E4M3: return read_from<FP8>(width, from, to, scales, multiplier);
    }
  }

  template <class Source>
  static DEVICE void read_from(int width, const unsigned char *from, unsigned char *to, const unsigned char *scales,
                               float multiplier) {
    constexpr int source_bytes = sizeof(typename Source::Bits), bytes = sizeof(typename Element::Bits);
    constexpr int count = 16 / (source_bytes > bytes ? source_bytes : bytes);
    if (width % count == 0 && is_multiple(from, count * source_bytes) && is_multiple(to, count * bytes))
      read_pieces<Source, count>(width, from, to, scales, multiplier);
    else
      read_pieces<Source, 1>(width, from, to, scales, multiplier);
  }

private:
  static DEVICE bool is_multiple(const void *address, int bytes) {
    return reinterpret_cast<unsigned long long>(address) % bytes == 0;
  }

  template <class Source, int COUNT>
  static DEVICE void read_pieces(int width, const unsigned char *from, unsigned char *to, const unsigned char *scales,
                                 float multiplier) {
    using Bits = typename Source::Bits;
#pragma unroll 1
    for (int d = lane_id() * COUNT; d < width; d += 32 * COUNT) {
      // Pieces lie within a group.
      const float factor = scales ? float_of(load_anywhere<u32>(scales + d / DS_MLA_GROUP * 4)) : multiplier;
      Piece<Source, COUNT> piece;
      if constexpr (COUNT > 1)
        piece = load_global<Piece<Source, COUNT>>(from + d * sizeof(Bits));
      else
        piece.elements[0] = load_anywhere<Bits>(from + d * sizeof(Bits));
      Piece<Element, COUNT> target;
#pragma unroll
      for (int i = 0; i < COUNT; ++i) target.elements[i] = Conversion<Source, Element>::of(piece.elements[i], factor);
      store_global(to + d * sizeof(target.elements[0]), target);
    }
  }
};

/** A slot's latents and rotary part to a row of each; nothing where there is no such block.
    `row`: of the table. */
template <class Element>
DEVICE void read_slot(const mla_cuda_paged_cache &cache, long long row, long long position, const mla_cuda_rows &latents,
                      const mla_cuda_rows &rope, int to) {
  const long long column = position / cache.block_size, place = position % cache.block_size;
  if (position < 0 || column >= cache.table_width) return;
  const int block = cache.block_table ? load_global<int>(cache.block_table + row * cache.block_table_stride + column)
                                      : static_cast<int>(row);
  if (block < 0 || block >= cache.block_count) return;
  // Not unrolled: the code for every dtype once.
#pragma unroll 1
  for (int part = 0; part < 2; ++part) {
    const mla_cuda_cache_rows &rows = part == 0 ? cache.latents : cache.rope;
    const mla_cuda_rows &target = part == 0 ? latents : rope;
    if (!target.data) continue;
    const unsigned char *from =
        static_cast<const unsigned char *>(rows.data) + block * rows.block_stride + place * rows.slot_stride;
    const unsigned char *scales = part == 0 && cache.scales_offset >= 0 ? from + cache.scales_offset : nullptr;
    RowReader<Element>::read(rows.dtype, rows.width, from, row_of(target, sizeof(typename Element::Bits), to, 0), scales,
                             cache.multiplier);
  }
}

/** A warp's token of a launch, which has up to 3 more than an int counts. */
DEVICE long long gathered_token() {
  return static_cast<long long>(block_x()) * MLA_CUDA_GATHER_TOKENS + thread_id() / 32;
}

template <class Element> struct GatheredToken {
  const mla_cuda_gather_cache &a;
  const long long token = gathered_token();

  DEVICE explicit GatheredToken(const mla_cuda_gather_cache &a) : a(a) {}

  DEVICE void run() const {
    if (token >= a.token_count) return;
    const int request = range_at(token, a.request_count, [this](int i) { return row(i); }), first = row(request);
    if (token < first || token >= row(request + 1)) return;
    const long long position = token - first + (a.seq_starts ? load_global<int>(a.seq_starts + request) : 0);
    read_slot<Element>(a.cache, request, position, a.latents, a.rope, static_cast<int>(token));
  }

private:
  DEVICE int row(int request) const { return load_global<int>(a.cu_seq_lens + request); }
};

/** A layer's: of the cache, or a new one. */
template <class Element> struct LayerToken {
  const mla_cuda_layer_tokens &a;
  const long long token = gathered_token();

  DEVICE explicit LayerToken(const mla_cuda_layer_tokens &a) : a(a) {}

  DEVICE void run() const {
    if (token >= a.token_count) return;
    const mla_cuda_layer_span &span = a.spans[range_at(token, a.span_count, [this](int i) { return a.spans[i].first; })];
    const int index = static_cast<int>(token) - span.first, to = span.row + index;
    if (span.table_row >= 0)
      return read_slot<Element>(a.cache, span.table_row, span.position + index, a.latents, a.rope, to);
    const int row = static_cast<int>(span.position) + index;
#pragma unroll 1
    for (int part = 0; part < 2; ++part)
      copy(part == 0 ? a.new_latents : a.new_rope, part == 0 ? a.cache.latents.width : a.cache.rope.width, row,
           part == 0 ? a.latents : a.rope, to);
  }

private:
  DEVICE void copy(const mla_cuda_rows &rows, int width, int row, const mla_cuda_rows &target, int to) const {
    constexpr int bytes = sizeof(typename Element::Bits);
    if (target.data)
      RowReader<Element>::template read_from<Element>(width, row_of(rows, bytes, row, 0), row_of(target, bytes, to, 0),
                                                      nullptr, 1);
  }
};
