/* Tokens out of a paged cache, as the CPU does it (MLACore/Layer/GatherCache.swift). */
#pragma once
#include "Cache.cuh"

/** One token, by a warp. */
template <class Element> struct GatheredToken {
  const mla_cuda_gather_cache &a;
  /** A launch has up to 3 more than an int counts. */
  const long long token;

  DEVICE explicit GatheredToken(const mla_cuda_gather_cache &a)
      : a(a), token(static_cast<long long>(block_x()) * MLA_CUDA_GATHER_TOKENS + thread_id() / 32) {}

  DEVICE void run() const {
    if (token >= a.token_count) return;
    const int request = request_of_token(), first = row(request);
    if (token < first || token >= row(request + 1)) return;
    const long long position = token - first + (a.seq_starts ? load_global<int>(a.seq_starts + request) : 0);
    const long long column = position / a.block_size, place = position % a.block_size;
    if (position < 0 || column >= a.table_width) return;
    const int block =
        a.block_table ? load_global<int>(a.block_table + request * a.block_table_stride + column) : request;
    if (block < 0 || block >= a.block_count) return;
    const auto source = [&](const mla_cuda_cache_rows &rows) {
      return static_cast<const unsigned char *>(rows.data) + block * rows.block_stride + place * rows.slot_stride;
    };
    const unsigned char *latents = source(a.cached_latents);
    read(a.cached_latents, latents, a.latents, a.scales_offset < 0 ? nullptr : latents + a.scales_offset);
    read(a.cached_rope, source(a.cached_rope), a.rope, nullptr);
  }

private:
  DEVICE int row(int request) const { return load_global<int>(a.cu_seq_lens + request); }

  /** The last request, of those that begin here or before, that there may be: whatever the offsets
      are, it is one of the launch's. */
  DEVICE int request_of_token() const {
    int low = 0, high = a.request_count;
#pragma unroll 1
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      if (row(middle) <= token)
        low = middle;
      else
        high = middle;
    }
    return low;
  }

  /** `scales`: of groups; NULL: there are none. */
  DEVICE void read(const mla_cuda_cache_rows &rows, const unsigned char *from, const mla_cuda_rows &target,
                   const unsigned char *scales) const {
    if (!target.data) return;
    switch (rows.dtype) {
      case DTYPE_FP32: return read_from<FP32>(rows.width, from, target, scales);
      case DTYPE_FP16: return read_from<FP16>(rows.width, from, target, scales);
      case DTYPE_BF16: return read_from<BF16>(rows.width, from, target, scales);
      case DTYPE_FP8_E4M3: return read_from<FP8>(rows.width, from, target, scales);
    }
  }

  template <class Source>
  DEVICE void read_from(int width, const unsigned char *from, const mla_cuda_rows &target,
                        const unsigned char *scales) const {
    constexpr int source_bytes = sizeof(typename Source::Bits), bytes = sizeof(typename Element::Bits);
    constexpr int count = 16 / (source_bytes > bytes ? source_bytes : bytes);
    unsigned char *to = row_of(target, bytes, static_cast<int>(token), 0);
    if (width % count == 0 && is_multiple(from, count * source_bytes) && is_multiple(to, count * bytes))
      read_pieces<Source, count>(width, from, to, scales);
    else
      read_pieces<Source, 1>(width, from, to, scales);
  }

  static DEVICE bool is_multiple(const void *address, int bytes) {
    return reinterpret_cast<unsigned long long>(address) % bytes == 0;
  }

  template <class Source, int COUNT>
  DEVICE void read_pieces(int width, const unsigned char *from, unsigned char *to, const unsigned char *scales) const {
    using Bits = typename Source::Bits;
#pragma unroll 1
    for (int d = lane_id() * COUNT; d < width; d += 32 * COUNT) {
      // Pieces lie within a group.
      const float multiplier = scales ? float_of(load_anywhere<u32>(scales + d / DS_MLA_GROUP * 4)) : a.multiplier;
      Piece<Source, COUNT> piece;
      if constexpr (COUNT > 1)
        piece = load_global<Piece<Source, COUNT>>(from + d * sizeof(Bits));
      else
        piece.elements[0] = load_anywhere<Bits>(from + d * sizeof(Bits));
      Piece<Element, COUNT> target;
#pragma unroll
      for (int i = 0; i < COUNT; ++i) target.elements[i] = Conversion<Source, Element>::of(piece.elements[i], multiplier);
      store_global(to + d * sizeof(target.elements[0]), target);
    }
  }
};
