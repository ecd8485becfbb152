// Tokens into a cache on a device: what the CPU writes.
//
// SPDX-License-Identifier: Apache-2.0
#include "device_attention.hpp"

namespace {

using test::Array;
using test::DeviceArray;

constexpr std::int64_t blocks = 5, block_size = 4;

/// What tokens become in a cache.
struct Problem {
  std::int32_t dtype, cached;
  std::int64_t rank, rope;
  std::int32_t format = MLA_CACHE_FORMAT_PLAIN;
  /// Whether the rotary part has a tensor of its own, and whether there is one at all.
  bool apart = false, has_rope = true;
  std::int64_t padding = 0;
  std::size_t shift = 0;
};

const std::vector<std::int64_t> slots{7, -1, 0, 19, 4, 12, 3};

struct Tensors {
  Tensors(const Problem& p, std::int64_t tokens)
      : latents(p.dtype, {tokens, p.rank}, p.padding),
        rope(p.dtype, {tokens, p.rope}, p.padding),
        cache(p.cached, {blocks, block_size, width(p)}, p.padding),
        rope_cache(p.cached, {blocks, block_size, p.rope}, p.padding) {
    std::mt19937 random(9);
    latents.fill(random, 30), rope.fill(random, 30);
    latents.set(0, 0, 0, NAN), latents.set(2, 1, 0, INFINITY), latents.set(3, 2, 0, 1e-30);
  }

  static std::int64_t width(const Problem& p) {
    return p.format == MLA_CACHE_FORMAT_PLAIN ? p.rank + (p.apart ? 0 : p.rope) : 656;
  }

  Array latents, rope, cache, rope_cache;
};

mla_concat_and_cache_args arguments(const Problem& p, const mla_tensor* latents, const mla_tensor* rope,
                                    const mla_tensor* cache, const mla_tensor* rope_cache) {
  mla_concat_and_cache_args args = MLA_CONCAT_AND_CACHE_ARGS_INIT;
  const bool scaled = p.format == MLA_CACHE_FORMAT_PLAIN && p.cached == MLA_DTYPE_FLOAT8_E4M3FN;
  args.cache_scale = scaled ? 0.3F : 1.0F;
  args.kv_c_normed = latents;
  args.k_pe = p.has_rope ? rope : nullptr;
  args.kv_cache = cache;
  args.k_pe_cache = p.apart ? rope_cache : nullptr;
  args.cache_format = p.format;
  return args;
}

/// Bit by bit, of a NaN that it is one.
void expect_same(const Array& got, const Array& right, const std::string& what) {
  got.each([&](std::int64_t i, std::int64_t j, std::int64_t k) {
    const double a = got.at(i, j, k), b = right.at(i, j, k);
    EXPECT(std::memcmp(&a, &b, sizeof a) == 0 || (std::isnan(a) && std::isnan(b)), "%s: %g, on the CPU %g",
           what.c_str(), a, b);
  });
  EXPECT(got.gaps_are_intact(), "%s: wrote between rows", what.c_str());
}

void expect_as_on_the_cpu(const Problem& p, const std::string& what) {
  const test::Stream stream;
  const auto tokens = static_cast<std::int64_t>(slots.size());
  Tensors host(p, tokens + 1), right(host);
  auto args = arguments(p, &right.latents.view(), &right.rope.view(), &right.cache.view(), &right.rope_cache.view());
  args.slot_mapping = slots.data();
  args.num_slots = tokens;
  mla::check(mla_concat_and_cache_mla(&args));

    const DeviceArray latents(host.latents, 0, p.shift), rope(host.rope, 0, p.shift),
      cache(host.cache, 0, p.shift), rope_cache(host.rope_cache, 0, p.shift);
  for (const auto& [array, from] : {std::make_pair(&latents, &host.latents), {&rope, &host.rope},
                                    {&cache, &host.cache}, {&rope_cache, &host.rope_cache}}) {
    array->upload(*from, stream);
  }
  // What is no slot counts as none here, where only the device can read it.
  auto given = slots;
  given[1] = blocks * block_size;
  const test::DeviceBytes places(given.size() * 8);
  DRIVER(cuMemcpyHtoDAsync_v2(places.address(), given.data(), given.size() * 8, stream));
  args = arguments(p, &latents.view(), &rope.view(), &cache.view(), &rope_cache.view());
  args.slot_mapping = places.pointer<std::int64_t>();
  args.num_slots = tokens;
  args.stream = stream;
  mla::check(mla_concat_and_cache_mla(&args));
  cache.download(host.cache, stream);
  rope_cache.download(host.rope_cache, stream);
  stream.synchronize();
  expect_same(host.cache, right.cache, what);
  expect_same(host.rope_cache, right.rope_cache, what + ", rotary parts");
}

void plain() {
  const test::Primary primary;
  for (const std::int32_t dtype : {MLA_DTYPE_BFLOAT16, MLA_DTYPE_FLOAT16, MLA_DTYPE_FLOAT32}) {
    for (const std::int32_t cached :
         {MLA_DTYPE_BFLOAT16, MLA_DTYPE_FLOAT16, MLA_DTYPE_FLOAT32, MLA_DTYPE_FLOAT8_E4M3FN}) {
      const std::string name = std::string(test::dtype_name(dtype)) + " to " + test::dtype_name(cached);
      expect_as_on_the_cpu({dtype, cached, 200, 64}, name);
      expect_as_on_the_cpu({dtype, cached, 33, 7, MLA_CACHE_FORMAT_PLAIN, true, true, 5, 4}, name + ", two tensors");
    }
  }
  expect_as_on_the_cpu({MLA_DTYPE_BFLOAT16, MLA_DTYPE_BFLOAT16, 16, 0, MLA_CACHE_FORMAT_PLAIN, false, false},
                       "without a rotary part");
}

void fp8_ds_mla() {
  const test::Primary primary;
  for (const std::int32_t dtype : {MLA_DTYPE_BFLOAT16, MLA_DTYPE_FLOAT16, MLA_DTYPE_FLOAT32}) {
    const Problem p{dtype, MLA_DTYPE_FLOAT8_E4M3FN, 512, 64, MLA_CACHE_FORMAT_FP8_DS_MLA};
    Problem odd = p, keyless = p;
    odd.shift = test::element_size(dtype), odd.padding = 2;
    keyless.has_rope = false;
    expect_as_on_the_cpu(p, test::dtype_name(dtype));
    expect_as_on_the_cpu(odd, std::string(test::dtype_name(dtype)) + " at odd addresses");
    expect_as_on_the_cpu(keyless, std::string(test::dtype_name(dtype)) + " without a rotary part");
  }
}

void refusals() {
  const test::Primary primary;
  const Problem p{MLA_DTYPE_BFLOAT16, MLA_DTYPE_BFLOAT16, 16, 8};
  Tensors host(p, 7);
  const DeviceArray latents(host.latents), rope(host.rope), cache(host.cache), rope_cache(host.rope_cache);
  const auto refused = [&](mla_concat_and_cache_args args, const char* text) {
    const mla_status status = mla_concat_and_cache_mla(&args);
    EXPECT(status == MLA_ERROR_INVALID_ARGUMENT && std::strstr(mla_last_error_message(), text), "%d, %s",
           static_cast<int>(status), mla_last_error_message());
  };
  auto args = arguments(p, &latents.view(), &rope.view(), &cache.view(), nullptr);
  args.num_slots = 7;
  refused(args, "slot_mapping = NULL");
  args.slot_mapping = slots.data();
  refused(args, "slot_mapping = 0x");
  const test::DeviceBytes places(64);
  args.slot_mapping = reinterpret_cast<const std::int64_t*>(places.address() + 4);
  refused(args, "must be aligned to 8 bytes");
  args.slot_mapping = places.pointer<std::int64_t>();
  args.num_slots = 8;
  refused(args, "num_slots = 8: must be 0 to the 7 rows");
  args.num_slots = 7;
  args.k_pe = &host.rope.view();
  refused(args, "k_pe.device_type = 1: must be 2 (CUDA)");
  args.k_pe = &rope.view();
  args.kv_cache = &host.cache.view();
  mla_status status = mla_concat_and_cache_mla(&args);
  EXPECT(status == MLA_ERROR_UNSUPPORTED_HARDWARE, "%d", static_cast<int>(status));
}

}  // namespace

int main(int argc, char** argv) {
  return test::run_on("90", argc, argv,
                      {{"device: plain caches", plain},
                       {"device: fp8_ds_mla", fp8_ds_mla},
                       {"device: slots and tensors that are refused", refusals}});
}
