/* What lies in a paged cache, and tokens into one, as the CPU does it (MLACore/Layer/ConcatAndCache.swift). */
#pragma once
#include "Rows.cuh"

/** Latents of fp8_ds_mla that share a scale. */
enum { DS_MLA_GROUP = 128 };

/** What a token's values become: of one dtype the very bits, else rounded. */
template <class Source, class Target> struct Conversion {
  static DEVICE typename Target::Bits of(typename Source::Bits bits, float) { return Target::bits(Source::value(bits)); }
};
template <class Element> struct Conversion<Element, Element> {
  static DEVICE typename Element::Bits of(typename Element::Bits bits, float) { return bits; }
};
template <class Source> struct Conversion<Source, FP8> {
  static DEVICE u8 of(typename Source::Bits bits, float multiplier) { return FP8::bits(Source::value(bits) * multiplier); }
};
template <class Target> struct Conversion<FP8, Target> {
  static DEVICE typename Target::Bits of(u8 bits, float multiplier) { return Target::bits(FP8::value(bits) * multiplier); }
};

/** Byte by byte where it must be: fp8_ds_mla lies at any address. */
template <class Bits> DEVICE void store_anywhere(unsigned char *target, Bits bits) {
  if (reinterpret_cast<unsigned long long>(target) % sizeof(Bits) == 0) return store_global(target, bits);
  for (int i = 0; i < static_cast<int>(sizeof(Bits)); ++i) store_global(target + i, static_cast<u8>(bits >> 8 * i));
}

template <class Bits> DEVICE Bits load_anywhere(const unsigned char *source) {
  if (reinterpret_cast<unsigned long long>(source) % sizeof(Bits) == 0) return load_global<Bits>(source);
  Bits bits = 0;
  for (int i = 0; i < static_cast<int>(sizeof(Bits)); ++i) bits |= static_cast<Bits>(load_global<u8>(source + i) << 8 * i);
  return bits;
}

/** One token, by a block. */
template <class Element> struct CacheToken {
  using Bits = typename Element::Bits;

  const mla_cuda_concat_and_cache &a;
  const int token;
  const long long slot;

  DEVICE explicit CacheToken(const mla_cuda_concat_and_cache &a)
      : a(a), token(block_x()), slot(load_global<long long>(a.slots + block_x())) {}

  DEVICE void run() const {
    if (slot < 0 || slot >= a.slot_count) return;
    const long long block = slot / a.block_size, place = slot % a.block_size;
    const auto target = [&](const mla_cuda_cache_rows &rows) {
      return static_cast<unsigned char *>(rows.data) + block * rows.block_stride + place * rows.slot_stride;
    };
    if (a.scales_offset >= 0)
      write_scaled(source(a.latents), target(a.cached_latents));
    else
      write(a.latents, a.cached_latents, target(a.cached_latents));
    write(a.rope, a.cached_rope, target(a.cached_rope));
  }

  DEVICE const unsigned char *source(const mla_cuda_rows &rows) const {
    return row_of(rows, sizeof(Bits), token, 0);
  }

  DEVICE void write(const mla_cuda_rows &from, const mla_cuda_cache_rows &to, unsigned char *target) const {
    switch (to.dtype) {
      case DTYPE_FP32: return write_as<FP32>(from, to, target);
      case DTYPE_FP16: return write_as<FP16>(from, to, target);
      case DTYPE_BF16: return write_as<BF16>(from, to, target);
      case DTYPE_FP8_E4M3: return write_as<FP8>(from, to, target);
    }
  }

  template <class Target>
  DEVICE void write_as(const mla_cuda_rows &from, const mla_cuda_cache_rows &to, unsigned char *target) const {
#pragma unroll 1
    for (int d = thread_id(); d < to.width; d += MLA_CUDA_CACHE_THREADS) {
      const Bits bits = from.data ? load_global<Bits>(source(from) + d * sizeof(Bits)) : 0;
      store_anywhere(target + d * sizeof(typename Target::Bits), Conversion<Element, Target>::of(bits, a.multiplier));
    }
  }

  /** 128 latents, which have a scale of their own, by a warp. */
  DEVICE void write_scaled(const unsigned char *from, unsigned char *to) const {
    constexpr int group = DS_MLA_GROUP, each = group / 32;
#pragma unroll 1
    for (int first = thread_id() / 32 * group; first < a.cached_latents.width;
         first += MLA_CUDA_CACHE_THREADS / 32 * group) {
      float values[each], largest = 0;
      for (int i = 0; i < each; ++i) {
        values[i] = Element::value(load_global<Bits>(from + (first + i * 32 + lane_id()) * sizeof(Bits)));
        // Of a number and NaN the number.
        largest = fmaxf(largest, float_of(bits_of(values[i]) & 0x7fffffff));
      }
      for (int lanes = 1; lanes < 32; lanes *= 2) largest = fmaxf(largest, shuffle_xor(largest, lanes));
      const float scale = scale_for(largest);
      // Not by the inverse, which may be subnormal.
      for (int i = 0; i < each; ++i) store_global(to + first + i * 32 + lane_id(), FP8::bits(values[i] / scale));
      if (lane_id() == 0) store_anywhere(to + a.scales_offset + first / group * 4, bits_of(scale));
    }
  }

  /** The smallest power of two, from 2^-13 on, that brings all values within 448. */
  static DEVICE float scale_for(float largest) {
    const float needed = fmaxf(fminf(largest, largest_number()) / 448, 0x1p-13f);
    // Up to the next exponent, unless nothing follows it.
    return float_of((bits_of(needed) + 0x7fffff) & 0x7f800000);
  }
};
