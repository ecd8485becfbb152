// Attention on a device against float64: what the kernels serve, in every form that a tensor
// and a batch may have.
//
// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "device_attention.hpp"

namespace {

using test::Attention;
using test::DeviceAttention;
using test::Model;
using Lengths = std::vector<std::int32_t>;

/// What FLASH_ATTN serves: DeepSeek's, Mistral's, GLM's.
const std::vector<Model> models{
    {2, 128, 64, 128, 512}, {2, 64, 64, 128, 512}, {1, 192, 64, 256, 512}, {1, 256, 0, 256, 512}};
const std::vector<std::int32_t> dtypes{MLA_DTYPE_BFLOAT16, MLA_DTYPE_FLOAT16};

void expect_right(mla::backend& backend, Attention problem, std::size_t shift, const std::string& what) {
  const test::Stream stream;
  DeviceAttention on_device(problem, 0, shift);
  on_device.run(backend, stream);
  test::expect_close(problem, test::reference_of(problem), what);
  EXPECT(problem.out.gaps_are_intact(), "%s: wrote between the rows of out", what.c_str());
  EXPECT(problem.lse.gaps_are_intact(), "%s: wrote between the rows of lse", what.c_str());
}

void dimensions() {
  const test::Primary primary;
  for (const Model& model : models) {
    mla::backend backend("FLASH_ATTN", test::config_on(model));
    for (const std::int32_t dtype : dtypes) {
      const std::string what = std::to_string(model.qk()) + "/" + std::to_string(model.v) + " " +
                               test::dtype_name(dtype);
      expect_right(backend, Attention::new_tokens(model, dtype, {70, 0, 1, 33}, 3), 0,
                   what + " new tokens");
      expect_right(backend, Attention::context(model, dtype, {9, 0, 66, 5}, {70, 11, 0, 130}, 4), 0,
                   what + " context");
    }
  }
}

/// Strides and addresses that no wide instruction takes, NaN between the rows.
void any_layout() {
  const test::Primary primary;
  const Model model = models[0];
  mla::backend backend("FLASH_ATTN", test::config_on(model));
  for (const std::int32_t dtype : dtypes) {
    for (const std::int64_t padding : {1, 8}) {
      for (const std::size_t shift : {0, 2, 16}) {
        const std::string what = std::string(test::dtype_name(dtype)) + " padding " +
                                 std::to_string(padding) + " shift " + std::to_string(shift);
        expect_right(backend, Attention::new_tokens(model, dtype, {65, 3}, 5, padding), shift, what);
        expect_right(backend, Attention::context(model, dtype, {2, 5}, {67, 1}, 6, padding), shift,
                     what + " context");
      }
    }
  }
}

/// More requests than a launch takes, of all short lengths; in some batches empty ones.
void many_requests() {
  const test::Primary primary;
  const Model model{1, 64, 64, 128, 512};
  mla::backend backend("FLASH_ATTN", test::config_on(model));
  std::mt19937 random(7);
  for (const std::size_t count : {1, 127, 128, 129, 300}) {
    Lengths queries, keys;
    for (std::size_t i = 0; i < count; ++i) {
      queries.push_back(static_cast<std::int32_t>(random() % 4));
      keys.push_back(static_cast<std::int32_t>(random() % 9));
    }
    const std::string what = std::to_string(count) + " requests";
    expect_right(backend, Attention::new_tokens(model, MLA_DTYPE_BFLOAT16, queries, 8), 0, what);
    expect_right(backend, Attention::context(model, MLA_DTYPE_BFLOAT16, queries, keys, 9), 0,
                 what + ", context");
  }
}

void random_batches() {
  const test::Primary primary;
  std::mt19937 random(11);
  const auto any = [&](std::uint32_t below) { return static_cast<std::int32_t>(random() % below); };
  for (int round = 0; round < 12; ++round) {
    Model model = models[static_cast<std::size_t>(round) % models.size()];
    model.heads = 1 + any(3);
    mla::backend backend("FLASH_ATTN", test::config_on(model));
    Lengths queries, keys;
    for (std::int32_t i = any(4); i >= 0; --i) {
      queries.push_back(any(3) == 0 ? any(140) : any(20));
      keys.push_back(any(3) == 0 ? any(200) : any(30));
    }
    const std::int64_t padding = any(2) == 0 ? 0 : any(20);
    const std::size_t shift = 2 * static_cast<std::size_t>(any(9));
    const std::int32_t dtype = dtypes[static_cast<std::size_t>(any(2))];
    const std::string what = "round " + std::to_string(round);
    const unsigned seed = static_cast<unsigned>(round);
    gpu_machine_seed(seed);
    expect_right(backend, Attention::new_tokens(model, dtype, queries, seed, padding), shift, what);
    expect_right(backend, Attention::context(model, dtype, queries, keys, seed, padding), shift,
                 what + ", context");
  }
}

/// v as a view of wider rows, as vLLM's kv_nope is; rows beyond the batch.
void views() {
  const test::Primary primary;
  const test::Stream stream;
  const Model model = models[0];
  mla::backend backend("FLASH_ATTN", test::config_on(model));
  Attention problem = Attention::new_tokens(model, MLA_DTYPE_BFLOAT16, {40, 21}, 6);
  test::Array wide(MLA_DTYPE_BFLOAT16, {problem.v.size(0), model.heads, 256});
  problem.v.each([&](std::int64_t i, std::int64_t j, std::int64_t k) {
    wide.set(i, j, 128 + k, problem.v.at(i, j, k));
  });
  DeviceAttention on_device(problem);
  const test::DeviceArray device_wide(wide);
  on_device.upload(stream);
  device_wide.upload(wide, stream);
  backend.prepare_metadata(test::Offsets{0, 40, 61});
  backend.run_prefill_new_tokens(on_device.q.view(), on_device.k.view(),
                                 device_wide.view().narrow(2, 128, 256), on_device.out.view(),
                                 &on_device.lse.view(), {}, stream);
  on_device.download(stream);
  test::expect_close(problem, test::reference_of(problem), "a view");
  // Without lse, and less rows.
  Attention fewer = Attention::new_tokens(model, MLA_DTYPE_BFLOAT16, {40, 21}, 6);
  DeviceAttention fewer_on_device(fewer);
  fewer_on_device.upload(stream);
  backend.prepare_metadata(test::Offsets{0, 40});
  backend.run_prefill_new_tokens(fewer_on_device.q.view(), fewer_on_device.k.view(),
                                 fewer_on_device.v.view(), fewer_on_device.out.view(), nullptr, {},
                                 stream);
  fewer_on_device.download(stream);
  fewer.out.each([&](std::int64_t i, std::int64_t j, std::int64_t k) {
    const double got = fewer.out.at(i, j, k);
    EXPECT(i < 40 ? got == problem.out.at(i, j, k) : std::isnan(got), "row %d: %g",
           static_cast<int>(i), got);
  });
  CHECK(fewer.lse.gaps_are_intact() && std::isnan(fewer.lse.at(0, 0)));
}

/// An output may be of another dtype than what comes in.
void outputs_of_any_dtype() {
  const test::Primary primary;
  const Model model = models[0];
  mla::backend backend("FLASH_ATTN", test::config_on(model));
  for (const std::int32_t dtype : dtypes) {
    for (const std::int32_t out : {MLA_DTYPE_FLOAT32, MLA_DTYPE_FLOAT16, MLA_DTYPE_BFLOAT16}) {
      for (const std::int64_t padding : {0, 3}) {
        Attention problem = Attention::new_tokens(model, dtype, {30, 0, 50}, 6);
        problem.out = test::Array(out, {80, model.heads, model.v}, padding);
        expect_right(backend, std::move(problem), 0,
                     std::string(test::dtype_name(dtype)) + " to " + test::dtype_name(out));
      }
    }
  }
}

/// What the run without a scale gives, divided by it and rounded once.
void quantized() {
  const test::Primary primary;
  const test::Stream stream;
  const Model model = models[0];
  const float scale = 0.003F;
  mla::backend backend("FLASH_ATTN", test::config_on(model));
  CHECK(backend.supports_quant_output(MLA_DTYPE_FLOAT8_E4M3FN));
  for (const std::int32_t dtype : dtypes) {
    Attention plain = Attention::new_tokens(model, dtype, {30, 0, 50}, 6);
    gpu_machine_seed(1);
    // In fp32, by the kernels that quantize.
    plain.out = test::Array(MLA_DTYPE_FLOAT32, {80, model.heads, model.v});
    DeviceAttention(plain).run(backend, stream);
    Attention problem = Attention::new_tokens(model, dtype, {30, 0, 50}, 6);
    problem.out = test::Array(MLA_DTYPE_FLOAT8_E4M3FN, {80, model.heads, model.v}, 3);
    DeviceAttention on_device(problem);
    gpu_machine_seed(1);
    on_device.upload(stream);
    mla_new_tokens_args args = MLA_NEW_TOKENS_ARGS_INIT;
    args.q = &on_device.q.view(), args.k = &on_device.k.view(), args.v = &on_device.v.view();
    args.out = &on_device.out.view(), args.lse = &on_device.lse.view();
    args.output_scale = &scale;
    args.stream = stream;
    backend.run_prefill_new_tokens(args);
    on_device.download(stream);
    bool saturates = false;
    problem.out.each([&](std::int64_t row, std::int64_t head, std::int64_t d) {
      const double wanted = plain.out.at(row, head, d) / static_cast<double>(scale);
      const double right = std::max(-448.0, std::min(448.0, wanted)), got = problem.out.at(row, head, d);
      EXPECT(std::fabs(got - right) <= std::fabs(right) * (1.0 / 16 + 1.0 / 256) + 1.0 / 1024, "%g, not %g",
             got, right);
      saturates |= std::fabs(got) == 448;
    });
    CHECK(saturates && problem.out.gaps_are_intact());
    CHECK(problem.lse.bytes() == plain.lse.bytes());
  }
}

/// Attention of tens of thousands of rows at a few places: offsets beyond 2^31 bytes.
void far_rows() {
  const test::Primary primary;
  const test::Stream stream;
  const Model model{1, 64, 64, 128, 512};
  mla::backend backend("FLASH_ATTN", test::config_on(model));
  Attention problem = Attention::new_tokens(model, MLA_DTYPE_BFLOAT16, {3, 2}, 6);
  DeviceAttention on_device(problem);
  on_device.upload(stream);
  // The same rows again, 3 GB apart.
  const std::int64_t stride = std::int64_t{3} << 28;
  const test::DeviceBytes far(4 * 2 * static_cast<std::size_t>(stride) + 256);
  for (std::size_t row = 0; row < 5; ++row) {
    DRIVER(cuMemcpyDtoDAsync_v2(far.address() + row * 2 * static_cast<std::size_t>(stride),
                                on_device.q.address() + row * 256, 256, stream));
  }
  mla::tensor q = on_device.q.view();
  q.data = far.pointer<void>();
  q.strides[0] = stride;
  on_device.prepare(backend);
  backend.run_prefill_new_tokens(q, on_device.k.view(), on_device.v.view(), on_device.out.view(),
                                 &on_device.lse.view(), {}, stream);
  on_device.download(stream);
  test::expect_close(problem, test::reference_of(problem), "rows 1.5 GB apart");
}

/// One row for all keys: more of them than a kernel counts.
void more_rows_than_a_kernel_counts() {
  const test::Primary primary;
  Attention problem = Attention::context(models[0], MLA_DTYPE_BFLOAT16, {3}, {1}, 1);
  DeviceAttention on_device(problem);
  mla::backend backend("FLASH_ATTN", test::config_on(models[0]));
  on_device.prepare(backend);
  for (mla::tensor* tensor : {&on_device.k.view(), &on_device.v.view()}) {
    tensor->shape[0] = INT32_MAX;
    tensor->strides[0] = 0;
  }
  const std::int32_t keys[] = {0, INT32_MAX - 63};
  mla_context_chunk chunk = problem.chunk(0);
  chunk.cu_seq_lens = keys;
  try {
    backend.run_prefill_context_chunk(chunk, on_device.q.view(), on_device.k.view(), on_device.v.view(),
                                      on_device.out.view(), on_device.lse.view(), {}, nullptr);
  } catch (const mla::error& failure) {
    EXPECT(failure.status() == MLA_ERROR_UNSUPPORTED_CONFIGURATION &&
               std::strstr(failure.what(), "k.shape[0]: 2147483584 rows in use, must be at most 2147483583"),
           "%s", failure.what());
    return;
  }
  test::fail("more rows than a kernel counts were taken");
}

}  // namespace

int main(int argc, char** argv) {
  setenv("MLA_TEST_GPU_MEMORY", "8000000000", 0);
  return test::run_on("90", argc, argv,
                      {{"device: dimensions and dtypes", dimensions},
                       {"device: outputs of any dtype", outputs_of_any_dtype},
                       {"device: any layout", any_layout},
                       {"device: 1 to 300 requests", many_requests},
                       {"device: random batches", random_batches},
                       {"device: views, rows beyond the batch, no lse", views},
                       {"device: fp8 outputs", quantized},
                       {"device: rows far apart", far_rows},
                       {"device: more rows than a kernel counts", more_rows_than_a_kernel_counts}});
}
