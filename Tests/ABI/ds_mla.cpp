// The bytes of fp8_ds_mla as vLLM and FlashMLA write and read them.
//
// SPDX-License-Identifier: Apache-2.0
#include "layer_request.hpp"

namespace {

constexpr std::int64_t rank = 512, group = 128, slot = 656;

/// 2^ceil(log2(max(largest / 448, 1e-4))), by definition.
double scale_of(double largest) {
  const float needed = std::max(static_cast<float>(std::fmin(largest, 3.4028234663852886e38)) / 448.0F,
                                0x1p-13F);
  int exponent = 0;
  const float fraction = std::frexp(needed, &exponent);
  return std::ldexp(1.0, fraction == 0.5F ? exponent - 1 : exponent);
}

test::Array tokens(std::int32_t dtype) {
  const double sizes[] = {0,      1e-8,  336,        0x1p-4,  448,     449, 0.0546875, 0.05469, 1, 0.0448,
                          0.0447, 60000, 0x1.cp+117, 3.3e38};
  test::Array latents(dtype, {static_cast<std::int64_t>(std::size(sizes)) + 3, rank});
  std::mt19937 random(1);
  latents.fill(random);
  for (std::size_t i = 0; i < std::size(sizes); ++i) {
    for (std::int64_t d = 0; d < rank; ++d) {
      const double value = sizes[i] * (d % 5 == 0 ? -1 : 1.0 / static_cast<double>(1 + d % 7));
      latents.set(static_cast<std::int64_t>(i), d, 0, value);
    }
  }
  const std::int64_t last = latents.size(0) - 1;
  latents.set(last, 3, 0, NAN), latents.set(last, 130, 0, HUGE_VAL), latents.set(last, 260, 0, -HUGE_VAL);
  for (std::int64_t d = 384; d < rank; ++d) latents.set(last, d, 0, NAN);
  return latents;
}

test::Array written(const test::Array& latents, const mla_tensor* k_pe) {
  test::Array cache(MLA_DTYPE_FLOAT8_E4M3FN, {1, 32, slot});
  const auto slots = test::numbered<std::int64_t>(latents.size(0));
  mla_concat_and_cache_args args = MLA_CONCAT_AND_CACHE_ARGS_INIT;
  args.kv_c_normed = &latents.view(), args.k_pe = k_pe, args.kv_cache = &cache.view();
  args.slot_mapping = slots.data(), args.num_slots = latents.size(0);
  args.cache_format = MLA_CACHE_FORMAT_FP8_DS_MLA;
  mla::check(mla_concat_and_cache_mla(&args));
  return cache;
}

void scales_and_codes() {
  for (std::int32_t dtype : {MLA_DTYPE_FLOAT32, MLA_DTYPE_FLOAT16, MLA_DTYPE_BFLOAT16}) {
    const test::Array latents = tokens(dtype);
    const test::Array cache = written(latents, nullptr);
    for (std::int64_t token = 0; token < latents.size(0); ++token) {
      const std::uint8_t* bytes = cache.bytes().data() + token * slot;
      for (std::int64_t first = 0; first < rank; first += group) {
        double largest = 0;
        for (std::int64_t d = first; d < first + group; ++d) {
          largest = std::fmax(largest, std::fabs(latents.at(token, d)));
        }
        float scale;
        std::memcpy(&scale, bytes + rank + first / group * 4, sizeof(scale));
        EXPECT(static_cast<double>(scale) == scale_of(largest), "%s, token %d: scale %g of %g",
               test::dtype_name(dtype), static_cast<int>(token), static_cast<double>(scale), largest);
        for (std::int64_t d = first; d < first + group; ++d) {
          const double value = latents.at(token, d) / static_cast<double>(scale);
          EXPECT((bytes[d] | (std::isnan(value) ? 0x80 : 0)) ==
                     (test::float8_bits(value) | (std::isnan(value) ? 0x80 : 0)),
                 "%s, token %d: %g is %#x", test::dtype_name(dtype), static_cast<int>(token), value,
                 bytes[d]);
        }
      }
    }
  }
}

void without_rope() {
  const test::Array latents = tokens(MLA_DTYPE_BFLOAT16);
  const mla::tensor empty(static_cast<void*>(nullptr), MLA_DTYPE_BFLOAT16, {latents.size(0), 0});
  const test::Array none = written(latents, nullptr), of_width_0 = written(latents, &empty);
  CHECK(none.bytes() == of_width_0.bytes());
  for (std::int64_t token = 0; token < latents.size(0); ++token) {
    for (std::int64_t i = rank + 16; i < slot; ++i) {
      CHECK(none.bytes()[static_cast<std::size_t>(token * slot + i)] == 0);
    }
  }
}

/// A layer without rope reads them as it reads the dequantized latents.
void layer_without_rope() {
  constexpr std::int64_t heads = 2, nope = 16, v_dim = 16, context = 20, count = 3;
  std::mt19937 random(2);
  test::Array weights(MLA_DTYPE_FLOAT32, {heads * (nope + v_dim), rank});
  test::Array q(MLA_DTYPE_FLOAT32, {count, heads, nope}), latents(MLA_DTYPE_FLOAT32, {context, rank});
  for (test::Array* array : {&weights, &q, &latents}) array->fill(random, 0.3);
  const test::Array cache = written(latents, nullptr);
  test::Array plain(MLA_DTYPE_FLOAT32, {1, 32, rank});
  for (std::int64_t token = 0; token < context; ++token) {
    for (std::int64_t d = 0; d < rank; ++d) {
      float scale;
      std::memcpy(&scale, cache.bytes().data() + token * slot + rank + d / group * 4, sizeof(scale));
      plain.set(0, token, d, cache.at(0, token, d) * static_cast<double>(scale));
    }
  }
  const auto run = [&](const test::Array& kv_cache, std::int32_t algorithm, std::int32_t isa) {
    test::Array out(MLA_DTYPE_FLOAT32, {count, heads, v_dim});
    mla_layer_config config = MLA_LAYER_CONFIG_INIT;
    config.num_heads = heads, config.scale = 0.2, config.kv_lora_rank = rank, config.max_isa = isa;
    config.qk_nope_head_dim = nope, config.v_head_dim = v_dim;
    config.kv_b_proj = &weights.view(), config.algorithm = algorithm;
    config.cache_dtype = kv_cache.view().dtype;
    config.cache_format = &kv_cache == &cache ? MLA_CACHE_FORMAT_FP8_DS_MLA : MLA_CACHE_FORMAT_PLAIN;
    const mla::tensor new_latents = latents.view().narrow(0, 0, count);
    test::LayerRequest request(q, new_latents, nullptr, kv_cache, context, out);
    mla::layer(config).forward(request.args);
    return out;
  };
  for (std::int32_t isa : test::tables()) {
    for (std::int32_t algorithm : {MLA_LAYER_ALGORITHM_UP_PROJECTED, MLA_LAYER_ALGORITHM_ABSORBED}) {
      CHECK(run(cache, algorithm, isa).bytes() == run(plain, algorithm, isa).bytes());
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  return test::run(argc, argv, {{"scales and codes", scales_and_codes},
                                {"rows without rope", without_rope},
                                {"a layer without rope", layer_without_rope}});
}
