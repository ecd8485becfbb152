// Quantized weights and their scales: a layer's results are, bit by bit, those of the weights
// that are meant.
//
// SPDX-License-Identifier: Apache-2.0
#include "layer_request.hpp"

namespace {

constexpr test::Model model{3, 24, 8, 17, 80};
constexpr std::int64_t rows = model.heads * (model.nope + model.v), columns = model.rank, tokens = 9;

/// Scales of blocks, powers of two: products with fp8 are exact in fp32.
struct Scales {
  Scales(std::int64_t rows_of_block, std::int64_t columns_of_block)
      : block_rows(rows_of_block), block_columns(columns_of_block),
        down((rows + block_rows - 1) / block_rows), across((columns + block_columns - 1) / block_columns) {
    for (std::int64_t i = 0; i < down * across; ++i) {
      exponents.push_back({static_cast<std::uint8_t>(127 - 8 + (i * 5 + i / across) % 7)});
      values.push_back(static_cast<float>(std::ldexp(1.0, exponents.back().bits - 127)));
    }
  }
  double of(std::int64_t row, std::int64_t column) const {
    return static_cast<double>(
        values[static_cast<std::size_t>(row / block_rows * across + column / block_columns)]);
  }

  std::int64_t block_rows, block_columns, down, across;
  std::vector<mla::float8_e8m0fnu> exponents;
  std::vector<float> values;
};

test::Array quantized() {
  std::mt19937 random(4);
  test::Array weights(MLA_DTYPE_FLOAT8_E4M3FN, {rows, columns});
  weights.fill(random, 30);
  return weights;
}

std::vector<std::uint8_t> result(const mla_layer_config& config) {
  std::mt19937 random(6);
  test::Array q(MLA_DTYPE_FLOAT32, {tokens, model.heads, model.qk()}), latents(MLA_DTYPE_FLOAT32, {tokens, model.rank}),
      k_pe(MLA_DTYPE_FLOAT32, {tokens, model.rope}), out(MLA_DTYPE_FLOAT32, {tokens, model.heads, model.v}),
      cache(MLA_DTYPE_FLOAT32, {1, 1, model.rank + model.rope});
  for (test::Array* array : {&q, &latents, &k_pe}) array->fill(random);
  test::LayerRequest request(q, latents.view(), &k_pe.view(), cache, 0, out);
  mla::layer(config).forward(request.args);
  return out.bytes();
}

mla_layer_config config_of(const test::Array& weights) {
  mla_layer_config config = model.layer_config(weights.view());
  config.dtype = MLA_DTYPE_FLOAT32;
  return config;
}

void blocks_of_any_size() {
  const test::Array weights = quantized();
  for (const auto& [down, across] : {std::pair<std::int64_t, std::int64_t>{32, 32}, {1, 32}, {1, 80}, {123, 80},
                                     {7, 5}, {64, 128}, {4096, 3}, {50, 1}}) {
    const Scales scales(down, across);
    test::Array meant(MLA_DTYPE_FLOAT32, {rows, columns});
    meant.each([&](std::int64_t i, std::int64_t j, std::int64_t) {
      meant.set(i, j, 0, weights.at(i, j) * scales.of(i, j));
    });
    const auto right = result(config_of(meant));
    const mla::tensor numbers(scales.values.data(), {scales.down, scales.across});
    const mla::tensor powers(scales.exponents.data(), {scales.down, scales.across});
    for (const mla::tensor* given : {&numbers, &powers}) {
      mla_layer_config config = config_of(weights);
      config.weight_scales = given;
      config.weight_block_rows = static_cast<std::int32_t>(down);
      config.weight_block_columns = static_cast<std::int32_t>(across);
      EXPECT(result(config) == right, "blocks of %d x %d, dtype %d", static_cast<int>(down),
             static_cast<int>(across), given->dtype);
    }
  }
}

void extreme_powers() {
  test::Array weights(MLA_DTYPE_FLOAT8_E4M3FN, {rows, columns}), meant(MLA_DTYPE_FLOAT32, {rows, columns});
  for (const std::uint8_t exponent : {std::uint8_t{0}, std::uint8_t{1}, std::uint8_t{120}}) {
    weights.each([&](std::int64_t i, std::int64_t j, std::int64_t) {
      weights.set(i, j, 0, 2);
      meant.set(i, j, 0, std::ldexp(2.0, exponent - 127));
    });
    const mla::float8_e8m0fnu power{exponent};
    const mla::tensor scale(&power, {1});
    mla_layer_config config = config_of(weights);
    config.weight_scales = &scale;
    EXPECT(result(config) == result(config_of(meant)), "2^%d", exponent - 127);
  }
}

void refused(mla_layer_config config, const char* text) {
  mla_layer* layer = nullptr;
  const mla_status status = mla_layer_create(&config, &layer);
  EXPECT(status == MLA_ERROR_INVALID_ARGUMENT && std::strstr(mla_last_error_message(), text), "%d, %s",
         static_cast<int>(status), mla_last_error_message());
  mla_layer_destroy(layer);
}

void refusals() {
  const test::Array weights = quantized();
  Scales scales(32, 32);
  scales.exponents[5].bits = 255;
  const mla::tensor powers(scales.exponents.data(), {scales.down, scales.across});
  mla_layer_config config = config_of(weights);
  config.weight_scales = &powers;
  config.weight_block_rows = config.weight_block_columns = 32;
  refused(config, "config.weight_scales[1][2] = nan: must be finite");
  config.weight_block_columns = 0;
  refused(config, "config.weight_block_columns = 0: must be 1 to");
  config.weight_block_columns = -1;
  refused(config, "config.weight_block_columns = -1: must be 1 to");
  config.weight_block_columns = 40;
  refused(config, "config.weight_scales.shape[1] = 3: must be 2, the columns of kv_b_proj / 40");
  config.weight_block_columns = 32, config.weight_block_rows = 0;
  refused(config, "config.weight_block_rows = 0: must be 1 to");
  config.weight_block_rows = 62;
  refused(config, "config.weight_scales.shape[0] = 4: must be 2, the rows of kv_b_proj / 62");

  test::Array plain(MLA_DTYPE_FLOAT32, {rows, columns});
  config = config_of(plain);
  config.weight_block_rows = config.weight_block_columns = 32;
  refused(config, "config.weight_block = 32 x 32: must be 0 x 0 without weight_scales");
}

/// The type is one of scales.
void not_of_tensors() {
  mla_tensor powers = quantized().view();
  powers.dtype = MLA_DTYPE_FLOAT8_E8M0FNU;
  refused(model.layer_config(powers), "config.kv_b_proj.dtype = MLA_DTYPE_FLOAT8_E8M0FNU: is for weight_scales");
  test::Array weights(MLA_DTYPE_FLOAT32, {rows, columns});
  mla_layer_config config = config_of(weights);
  config.cache_dtype = MLA_DTYPE_FLOAT8_E8M0FNU;
  refused(config, "config.cache_dtype = MLA_DTYPE_FLOAT8_E8M0FNU: is for weight_scales");
  config.cache_dtype = MLA_DTYPE_NONE, config.dtype = MLA_DTYPE_FLOAT8_E8M0FNU;
  refused(config, "config.dtype = MLA_DTYPE_FLOAT8_E8M0FNU: must be");
  auto step = test::Attention::new_tokens({}, MLA_DTYPE_BFLOAT16, {4}, 1);
  mla::backend backend("FLASH_ATTN", step.model.config());
  backend.prepare_metadata(step.q_loc);
  step.out.view().dtype = MLA_DTYPE_FLOAT8_E8M0FNU;
  try {
    step.run_prepared(backend);
  } catch (const mla::error& failure) {
    EXPECT(std::strstr(failure.what(), "out.dtype = MLA_DTYPE_FLOAT8_E8M0FNU"), "%s", failure.what());
    return;
  }
  test::fail("an output of powers of two was accepted");
}

}  // namespace

int main(int argc, char** argv) {
  return test::run(argc, argv,
                   {{"weight scales: blocks of any size, fp32 and powers of two", blocks_of_any_size},
                    {"weight scales: the smallest and the largest power", extreme_powers},
                    {"weight scales: refusals", refusals},
                    {"weight scales: their type is not one of tensors", not_of_tensors}});
}
