// The kernels that put tokens into a cache, on the model, against the format's definition.
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "paged_cache.hpp"
#include "report.hpp"

namespace {

constexpr Format formats[] = {Format::bf16, Format::fp16, Format::fp32};

struct Slots {
  std::vector<long long> numbers;

  /// No two the same; -1 and beyond the cache are no slots.
  Slots(int tokens, Random& random) {
    std::vector<long long> free;
    for (int i = 0; i < Cache::slots; ++i) free.push_back(i);
    for (int i = 0; i < tokens; ++i) {
      if (random.chance(0.3) || free.empty()) {
        numbers.push_back(random.pick({-1ll, static_cast<long long>(Cache::slots), -(1ll << 40), 1ll << 32}));
        continue;
      }
      const std::size_t pick = random.next() % free.size();
      numbers.push_back(free[pick]);
      free.erase(free.begin() + static_cast<long>(pick));
    }
    SoftwareGPU::memory.allow(numbers.data(), numbers.size() * sizeof(long long));
  }
  ~Slots() { SoftwareGPU::memory.forbid(numbers.data()); }
  bool is_one(long long slot) const { return slot >= 0 && slot < Cache::slots; }
};

void store(unsigned char* at, Format format, std::uint32_t bits) { std::memcpy(at, &bits, bytes_of(format)); }

void launch_for(Format format, const mla_cuda_concat_and_cache& a, int tokens, Random& random) {
  launch(std::string("mla_concat_and_cache_") + name_of(format), tokens, 1, MLA_CUDA_CACHE_THREADS, 0, &a, sizeof a,
         random.next(), 0);
}

/// Any number, at times one that saturates, is subnormal, or is none.
void fill(Tensor& tensor, Random& random) {
  const double odd[] = {NAN, INFINITY, -INFINITY, 447, 449, 1e-3, -1e-7, 0, 60000};
  for (int row = 0; row < tensor.rows; ++row)
    for (int d = 0; d < tensor.dim; ++d)
      tensor.set(row, 0, d, random.chance(0.1) ? random.pick(odd) : 30 * random.normal());
}

/// A value as a cache of that format has it; fp8 times the multiplier, rounded once in fp32.
std::uint32_t cached(const Tensor& tensor, int row, int d, Format target, float multiplier) {
  if (target == tensor.format) return tensor.bits(row, 0, d);
  const float value = static_cast<float>(tensor.get(row, 0, d));
  return bits_from(target, target == Format::fp8 ? value * multiplier : value);
}

void plain(Format format, int seeds) {
  Report report(std::string("mla_concat_and_cache_") + name_of(format) + " into caches of every dtype");
  const Format targets[] = {Format::bf16, Format::fp16, Format::fp32, Format::fp8};
  for (int seed = 0; seed < seeds; ++seed)
    for (Format target : targets) {
      Random random(91 + seed);
      const int tokens = random.between(1, 9), latents = random.pick({512, 64, 33}), rope = random.pick({64, 0, 7});
      const bool has_rope = rope > 0 && random.chance(0.8);
      Tensor from(format, tokens, 1, latents, random.pick(layouts)), from_rope(format, tokens, 1, rope, Layout::odd);
      fill(from, random), fill(from_rope, random);
      // A NaN that no rounding makes.
      if (target == format) from.set_bits(0, 0, 2, poison_of(format));
      const int width = bytes_of(target) * (latents + rope);
      Cache cache(width), expected(width);
      const Slots slots(tokens, random);
      mla_cuda_concat_and_cache a = {};
      a.latents = from.view();
      if (has_rope) a.rope = from_rope.view();
      a.slots = slots.numbers.data(), a.slot_count = Cache::slots, a.block_size = Cache::block_size;
      a.cached_latents = cache.rows(0, latents, target);
      a.cached_rope = cache.rows(latents * bytes_of(target), rope, target);
      a.multiplier = target == Format::fp8 ? 1 / 0.3f : 1;
      a.scales_offset = -1;
      launch_for(format, a, tokens, random);
      for (int token = 0; token < tokens; ++token) {
        const long long slot = slots.numbers[token];
        if (!slots.is_one(slot)) continue;
        for (int d = 0; d < latents + rope; ++d) {
          const std::uint32_t bits = d < latents ? cached(from, token, d, target, a.multiplier)
                                     : has_rope  ? cached(from_rope, token, d - latents, target, a.multiplier)
                                                 : 0;
          store(expected.at(slot, d * bytes_of(target)), target, bits);
        }
      }
      report.expect(cache.memory == expected.memory, "seed " + std::to_string(seed) + ", " + name_of(target));
    }
}

/// fp8_ds_mla: 512 codes, 4 scales, 64 numbers of bf16.
void scaled(Format format, int seeds) {
  Report report(std::string("mla_concat_and_cache_") + name_of(format) + " into fp8_ds_mla");
  for (int seed = 0; seed < seeds; ++seed) {
    Random random(92 + seed);
    const int tokens = random.between(1, 9);
    Tensor from(format, tokens, 1, 512, Layout::odd), rope(format, tokens, 1, 64);
    fill(from, random), fill(rope, random);
    const double sizes[] = {1e-6, 1, 448, 447.9, 448.1, 0.0546875, 30000, 0};
    for (int token = 0; token < tokens; ++token)
      for (int group = 0; group < 4; ++group) {
        if (random.chance(0.4)) continue;
        const double size = random.pick(sizes);
        for (int d = 0; d < 128; ++d)
          from.set(token, 0, group * 128 + d, d == 77 ? size : random.chance(0.02) ? NAN : size * random.uniform());
      }
    const int skew = random.between(0, 3);
    Cache cache(656, skew), expected(656, skew);
    const Slots slots(tokens, random);
    mla_cuda_concat_and_cache a = {};
    a.latents = from.view(), a.rope = rope.view();
    a.slots = slots.numbers.data(), a.slot_count = Cache::slots, a.block_size = Cache::block_size;
    a.cached_latents = cache.rows(0, 512, Format::fp8), a.cached_rope = cache.rows(528, 64, Format::bf16);
    a.multiplier = 1, a.scales_offset = 512;
    launch_for(format, a, tokens, random);
    for (int token = 0; token < tokens; ++token) {
      const long long slot = slots.numbers[token];
      if (!slots.is_one(slot)) continue;
      for (int group = 0; group < 4; ++group) {
        double largest = 0;
        for (int d = group * 128; d < group * 128 + 128; ++d)
          if (std::fabs(from.get(token, 0, d)) > largest) largest = std::fabs(from.get(token, 0, d));
        const double needed = std::fmax(std::fmin(largest, 3.4028234663852886e38) / 448, 0x1p-13);
        double scale = 0x1p-13;
        while (scale < needed) scale *= 2;
        store(expected.at(slot, 512 + 4 * group), Format::fp32, bits_from(Format::fp32, scale));
        for (int d = group * 128; d < group * 128 + 128; ++d)
          *expected.at(slot, d) = static_cast<unsigned char>(bits_from(Format::fp8, from.get(token, 0, d) / scale));
      }
      for (int d = 0; d < 64; ++d) store(expected.at(slot, 528 + 2 * d), Format::bf16, cached(rope, token, d, Format::bf16, 1));
    }
    report.expect(cache.memory == expected.memory, "seed " + std::to_string(seed));
  }
}

}  // namespace

int main(int count, char** arguments) {
  const int seeds = count > 1 ? std::atoi(arguments[1]) : 20;
  return Report::run([&] {
    for (Format format : formats) plain(format, seeds);
    for (Format format : formats) scaled(format, seeds);
  });
}
