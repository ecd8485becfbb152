// The kernels that bring tokens out of a cache, on the model, against the format's definition.
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "paged_cache.hpp"
#include "report.hpp"

namespace {

constexpr Format formats[] = {Format::bf16, Format::fp16, Format::fp32};

/// Integers in the GPU's memory, and no others beside them.
struct Integers {
  std::vector<int> numbers;

  explicit Integers(std::vector<int> given) : numbers(std::move(given)) {
    SoftwareGPU::memory.allow(numbers.data(), numbers.size() * sizeof(int));
  }
  ~Integers() { SoftwareGPU::memory.forbid(numbers.data()); }
  int operator[](long long i) const { return numbers[static_cast<std::size_t>(i)]; }
};

/// Which tokens, of each request. What is out of range is not gathered.
struct Batch {
  static constexpr int width = 4, stride = 6;
  int requests;
  bool has_table, has_starts;
  Integers offsets, starts, table;

  explicit Batch(Random& random)
      : requests(random.between(1, 6)),
        has_table(random.chance(0.8)),
        has_starts(random.chance(0.8)),
        offsets(some_offsets(requests, random)),
        starts(some(requests, {0, 1, 4, 5, 7, 9, 10, 14, 19, 20, -1, 1 << 30, -(1 << 30), 2147483647}, random)),
        table(some((requests - 1) * stride + width, {0, 1, 2, 0, 1, 2, -1, 3, 2147483647, -2147483647}, random)) {}

  int rows() const { return offsets[requests]; }
  /// Where a row's token is; -1: nowhere.
  long long slot(int row) const {
    if (row < offsets[0]) return -1;
    int request = 0;
    while (request < requests && row >= offsets[request + 1]) ++request;
    if (request == requests) return -1;
    return slot(request, row - offsets[request] + (has_starts ? starts[request] : 0ll));
  }
  long long slot(int request, long long position) const {
    if (position < 0 || position >= (has_table ? width : 1) * Cache::block_size) return -1;
    const int block = has_table ? table[request * stride + position / Cache::block_size] : request;
    return block < 0 || block >= Cache::blocks ? -1 : block * Cache::block_size + position % Cache::block_size;
  }

  void describe(mla_cuda_paged_cache& a) const {
    a.block_table = has_table ? table.numbers.data() : nullptr;
    a.block_table_stride = stride, a.table_width = has_table ? width : 1;
    a.block_count = Cache::blocks, a.block_size = Cache::block_size;
  }
  void describe(mla_cuda_gather_cache& a) const {
    describe(a.cache);
    a.cu_seq_lens = offsets.numbers.data(), a.seq_starts = has_starts ? starts.numbers.data() : nullptr;
    a.request_count = requests;
  }

  static std::vector<int> some(int count, const std::vector<int>& choices, Random& random) {
    std::vector<int> numbers;
    for (int i = 0; i < count; ++i) numbers.push_back(choices[random.next() % choices.size()]);
    return numbers;
  }
  static std::vector<int> some_offsets(int requests, Random& random) {
    // Rows before the first request's are nobody's.
    std::vector<int> numbers{random.pick({0, 0, 3})};
    for (int i = 0; i < requests; ++i) numbers.push_back(numbers.back() + random.pick({0, 0, 1, 2, 5, 11}));
    return numbers;
  }
};

/// Rows of one tensor or of two, and some that are no request's.
struct Output {
  const int latents, rope;
  const bool is_apart;
  Tensor dst, k_pe;

  Output(Format format, int rows, int of_latents, int of_rope, Random& random)
      : latents(of_latents),
        rope(of_rope),
        is_apart(random.chance(0.5)),
        dst(format, rows, 1, latents + (is_apart ? 0 : rope), random.pick(layouts)),
        k_pe(format, rows, 1, is_apart ? rope : 0, random.pick(layouts)) {
    dst.fill_with_poison(), k_pe.fill_with_poison();
  }

  void describe(mla_cuda_gather_cache& a) const {
    a.latents = dst.view();
    a.token_count = dst.rows;
    if (rope == 0) return;
    a.rope = is_apart ? k_pe.view() : dst.view();
    if (!is_apart) a.rope.data = static_cast<unsigned char*>(a.rope.data) + latents * bytes_of(dst.format);
  }
  std::uint32_t bits(int row, int d) const {
    return is_apart && d >= latents ? k_pe.bits(row, 0, d - latents) : dst.bits(row, 0, d);
  }
  bool is_intact() const { return dst.is_intact() && k_pe.is_intact(); }
};

std::uint32_t load(const unsigned char* at, Format format) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, at, bytes_of(format));
  return bits;
}

/// A cached value in another format: a product is fp32's; a NaN that is rounded is any.
bool is_read_as(std::uint32_t got, Format target, std::uint32_t stored, Format source, float multiplier) {
  if (target == source) return got == stored;
  const float value = static_cast<float>(value_of(source, stored));
  const std::uint32_t right = bits_from(target, source == Format::fp8 ? value * multiplier : value);
  return got == right || (std::isnan(value_of(target, got)) && std::isnan(value_of(target, right)));
}

void launch_for(Format format, const mla_cuda_gather_cache& a, Random& random) {
  const int blocks = (a.token_count + MLA_CUDA_GATHER_TOKENS - 1) / MLA_CUDA_GATHER_TOKENS;
  launch(std::string("mla_gather_cache_") + name_of(format), blocks, 1, MLA_CUDA_CACHE_THREADS, 0, &a, sizeof a,
         random.next(), 0);
}

/// Whether rows are what `is_right` says of a slot and an element, others being as they were.
template <class Right>
bool is_gathered(const Batch& batch, const Output& output, Right is_right) {
  for (int row = 0; row < output.dst.rows; ++row) {
    const long long slot = row < batch.rows() ? batch.slot(row) : -1;
    for (int d = 0; d < output.latents + output.rope; ++d) {
      const std::uint32_t got = output.bits(row, d);
      if (slot < 0 ? got != poison_of(output.dst.format) : !is_right(slot, d, got)) return false;
    }
  }
  return output.is_intact();
}

void fill(Cache& cache, Random& random) {
  for (unsigned char& byte : cache.memory) byte = static_cast<unsigned char>(random.next());
}

void plain(Format format, int seeds) {
  Report report(std::string("mla_gather_cache_") + name_of(format) + " from caches of every dtype");
  for (int seed = 0; seed < seeds; ++seed)
    for (Format source : {Format::bf16, Format::fp16, Format::fp32, Format::fp8}) {
      Random random(171 + seed);
      const int latents = random.pick({512, 64, 33}), rope = random.pick({64, 0, 7});
      Cache cache(bytes_of(source) * (latents + rope));
      fill(cache, random);
      const Batch batch(random);
      Output output(format, batch.rows() + random.between(1, 5), latents, rope, random);
      mla_cuda_gather_cache a = {};
      batch.describe(a), output.describe(a);
      a.cache.latents = cache.rows(0, latents, source);
      a.cache.rope = cache.rows(latents * bytes_of(source), rope, source);
      a.cache.multiplier = source == Format::fp8 ? 0.3f : 1, a.cache.scales_offset = -1;
      launch_for(format, a, random);
      report.expect(is_gathered(batch, output,
                                [&](long long slot, int d, std::uint32_t got) {
                                  return is_read_as(got, format, load(cache.at(slot, d * bytes_of(source)), source),
                                                    source, a.cache.multiplier);
                                }),
                    "seed " + std::to_string(seed) + ", " + name_of(source));
    }
}

/// 512 codes, 4 scales, 64 numbers of bf16, at any address.
void scaled(Format format, int seeds) {
  Report report(std::string("mla_gather_cache_") + name_of(format) + " from fp8_ds_mla");
  for (int seed = 0; seed < seeds; ++seed) {
    Random random(172 + seed);
    Cache cache(656, random.between(0, 3));
    fill(cache, random);
    for (int slot = 0; slot < Cache::slots; ++slot)
      for (int group = 0; group < 4; ++group) {
        const float scale = random.pick({0.125f, 0.3f, 1e-39f, 3e4f});
        std::memcpy(cache.at(slot, 512 + 4 * group), &scale, 4);
      }
    const Batch batch(random);
    Output output(format, batch.rows() + 1, 512, random.chance(0.5) ? 64 : 0, random);
    mla_cuda_gather_cache a = {};
    batch.describe(a), output.describe(a);
    a.cache.latents = cache.rows(0, 512, Format::fp8), a.cache.rope = cache.rows(528, 64, Format::bf16);
    a.cache.multiplier = 1, a.cache.scales_offset = 512;
    launch_for(format, a, random);
    report.expect(is_gathered(batch, output,
                              [&](long long slot, int d, std::uint32_t got) {
                                if (d >= 512) {
                                  return is_read_as(got, format, load(cache.at(slot, 528 + 2 * (d - 512)), Format::bf16),
                                                    Format::bf16, 1);
                                }
                                float scale;
                                std::memcpy(&scale, cache.at(slot, 512 + d / 128 * 4), 4);
                                return is_read_as(got, format, *cache.at(slot, d), Format::fp8, scale);
                              }),
                  "seed " + std::to_string(seed));
  }
}

/// Offsets that are none: no row is written outside of the tensor, nothing else read.
void wrong_offsets(int seeds) {
  Report report("mla_gather_cache by offsets that are none");
  for (int seed = 0; seed < seeds; ++seed) {
    Random random(173 + seed);
    Cache cache(2 * 72);
    Batch batch(random);
    for (int& offset : batch.offsets.numbers)
      offset = random.pick({0, 3, 17, -1, -2147483647, 2147483647, random.between(-40, 40)});
    // The only request's rows go on behind the tensor.
    if (random.chance(0.5)) {
      batch.offsets.numbers.assign(batch.offsets.numbers.size(), 2147483647);
      batch.offsets.numbers[0] = 0, batch.starts.numbers[0] = 0;
    }
    Output output(Format::bf16, random.between(1, 40), 64, 8, random);
    mla_cuda_gather_cache a = {};
    batch.describe(a), output.describe(a);
    a.cache.latents = cache.rows(0, 64, Format::bf16), a.cache.rope = cache.rows(128, 8, Format::bf16);
    a.cache.multiplier = 1, a.cache.scales_offset = -1;
    launch_for(Format::bf16, a, random);
    report.expect(output.is_intact(), "seed " + std::to_string(seed));
  }
}

/// Tokens of the cache and new ones, in any order, each with rows of its own.
void layer_tokens(Format format, int seeds) {
  Report report(std::string("mla_gather_layer_tokens_") + name_of(format));
  for (int seed = 0; seed < seeds; ++seed) {
    Random random(174 + seed);
    const Format source = random.pick({Format::fp8, Format::bf16, Format::fp32});
    const int latents = random.pick({512, 64}), rope = random.pick({64, 0, 8});
    Cache cache(bytes_of(source) * (latents + rope));
    fill(cache, random);
    const Batch batch(random);
    Tensor new_latents(format, 30, 1, latents, random.pick(layouts)), new_rope(format, 30, 1, rope, random.pick(layouts));
    new_latents.fill(random), new_rope.fill(random);
    mla_cuda_layer_tokens a = {};
    batch.describe(a.cache);
    a.cache.latents = cache.rows(0, latents, source);
    a.cache.rope = cache.rows(latents * bytes_of(source), rope, source);
    a.cache.multiplier = source == Format::fp8 ? 0.3f : 1, a.cache.scales_offset = -1;
    const int spans = random.pick({1, 2, 9, +MLA_CUDA_LAUNCH_SPANS});
    std::vector<int> span_of_row;
    for (int i = 0; i < spans; ++i) {
      const bool is_new = random.chance(0.5);
      const int tokens = random.pick({1, 2, 5, 9});
      const int position = random.between(0, 30 - tokens), row = static_cast<int>(span_of_row.size());
      a.spans[a.span_count++] = {a.token_count, row, is_new ? -1 : random.between(0, batch.requests - 1), 0, position};
      a.token_count += tokens;
      span_of_row.insert(span_of_row.end(), static_cast<std::size_t>(tokens), i);
      // Rows of nobody's.
      if (random.chance(0.3)) span_of_row.push_back(-1);
    }
    const int rows = static_cast<int>(span_of_row.size());
    Output output(format, rows, latents, rope, random);
    mla_cuda_gather_cache of_output = {};
    output.describe(of_output);
    a.latents = of_output.latents, a.rope = of_output.rope;
    a.new_latents = new_latents.view();
    if (rope > 0) a.new_rope = new_rope.view();
    const int blocks = (a.token_count + MLA_CUDA_GATHER_TOKENS - 1) / MLA_CUDA_GATHER_TOKENS;
    launch(std::string("mla_gather_layer_tokens_") + name_of(format), blocks, 1, MLA_CUDA_CACHE_THREADS, 0, &a, sizeof a,
           random.next(), 0);
    const auto is_right = [&](int row, int d, std::uint32_t got) {
      const int number = span_of_row[static_cast<std::size_t>(row)];
      if (number < 0) return got == poison_of(format);
      const mla_cuda_layer_span& span = a.spans[number];
      const long long position = span.position + row - span.row;
      if (span.table_row < 0) {
        const int token = static_cast<int>(position);
        return got == (d < latents ? new_latents.bits(token, 0, d) : new_rope.bits(token, 0, d - latents));
      }
      const long long slot = batch.slot(span.table_row, position);
      return slot < 0 ? got == poison_of(format)
                      : is_read_as(got, format, load(cache.at(slot, d * bytes_of(source)), source), source,
                                   a.cache.multiplier);
    };
    bool all = output.is_intact();
    for (int row = 0; row < rows; ++row)
      for (int d = 0; d < latents + rope; ++d) all = all && is_right(row, d, output.bits(row, d));
    report.expect(all, "seed " + std::to_string(seed) + ", " + name_of(source));
  }
}

}  // namespace

int main(int count, char** arguments) {
  const int seeds = count > 1 ? std::atoi(arguments[1]) : 20;
  return Report::run([&] {
    for (Format format : formats) plain(format, seeds);
    for (Format format : formats) scaled(format, seeds);
    wrong_offsets(seeds);
    for (Format format : {Format::bf16, Format::fp16}) layer_tokens(format, seeds);
  });
}
