// The recorded engine steps, with their context merged in, on a device.
//
// SPDX-License-Identifier: Apache-2.0
#include "recording.hpp"

#include "device_attention.hpp"

namespace {

using test::Attention;
using test::DeviceArray;
using test::DeviceAttention;
using test::expect_recorded;
using test::loaded;

void fresh(std::int32_t dtype) {
  const test::Primary primary;
  const test::Stream stream;
  const test::Recording recording("dsv2_fresh.safetensors");
  const st_file& file = recording.file;
  Attention step = loaded(file, dtype, "q", "k", "v", "query_start_loc", "query_start_loc", true);
  mla::backend backend("FLASH_ATTN", test::config_on(step.model));
  DeviceAttention(step).run(backend, stream);
  expect_recorded(file, "out", "lse", step.out, step.lse, "the device");
}

/// All on one stream, and nothing waited for in between.
void chunked(std::int32_t dtype) {
  const test::Primary primary;
  const test::Stream stream;
  const test::Recording recording("dsv2_chunked.safetensors");
  const st_file& file = recording.file;
  Attention suffix = loaded(file, dtype, "q", "k_new", "v_new", "query_start_loc", "query_start_loc", true);
  Attention first = loaded(file, dtype, "q", "chunk0_k", "chunk0_v", "chunk0_query_start_loc",
                           "chunk0_cu_seq_lens", false);
  Attention second = loaded(file, dtype, "q", "chunk1_k", "chunk1_v", "chunk1_query_start_loc",
                            "chunk1_cu_seq_lens", false);
  const std::int64_t with_context = first.out.size(0);
  test::Array merged(dtype, {suffix.out.size(0), suffix.model.heads, suffix.model.v});
  test::Array merged_lse(MLA_DTYPE_FLOAT32, {suffix.model.heads, suffix.out.size(0)});
  DeviceAttention on_device(suffix), first_on_device(first), second_on_device(second);
  const DeviceArray out(merged), lse(merged_lse);
  mla::backend backend("FLASH_ATTN", test::config_on(suffix.model));
  const mla_context_chunk planned[] = {first.chunk(0), second.chunk(1)};
  backend.prepare_metadata(suffix.q_loc, planned);
  for (DeviceAttention* each : {&on_device, &first_on_device, &second_on_device}) {
    each->reserve(backend);
    each->upload(stream);
  }
  on_device.launch(backend, stream);
  first_on_device.launch(backend, stream, 0);
  second_on_device.launch(backend, stream, 1);
  const auto merge = [&](const DeviceArray& to, const DeviceArray& to_lse, const DeviceArray& before,
                         const DeviceArray& before_lse, const DeviceArray& after,
                         const DeviceArray& after_lse, std::int64_t tokens) {
    mla_merge_args args = MLA_MERGE_ARGS_INIT;
    args.output = &to.view(), args.output_lse = &to_lse.view();
    args.prefix_output = &before.view(), args.prefix_lse = &before_lse.view();
    args.suffix_output = &after.view(), args.suffix_lse = &after_lse.view();
    args.prefill_tokens_with_context = tokens;
    args.stream = stream;
    mla::check(mla_merge_attn_states(&args));
  };
  // The context's own, in place; then the new tokens' with rows of the context above theirs.
  merge(first_on_device.out, first_on_device.lse, first_on_device.out, first_on_device.lse,
        second_on_device.out, second_on_device.lse, -1);
  for (std::int64_t head = 0; head < suffix.model.heads; ++head) {
    const auto row_bytes = static_cast<std::size_t>(4 * with_context);
    DRIVER(cuMemcpyDtoDAsync_v2(lse.address() + static_cast<std::size_t>(4 * head * lse.view().strides[0]),
                                first_on_device.lse.address() + static_cast<std::size_t>(head) * row_bytes,
                                row_bytes, stream));
  }
  DRIVER(cuMemcpyDtoDAsync_v2(out.address(), first_on_device.out.address(),
                              static_cast<std::size_t>(with_context * out.view().strides[0]) *
                                  test::element_size(dtype),
                              stream));
  merge(out, lse, out, lse, on_device.out, on_device.lse, with_context);
  first_on_device.download(stream);
  expect_recorded(file, "context_out", "context_lse", first.out, first.lse, "the device");
  on_device.download(stream);
  expect_recorded(file, "suffix_out", "suffix_lse", suffix.out, suffix.lse, "the device");
  out.download(merged, stream);
  lse.download(merged_lse, stream);
  expect_recorded(file, "out", "lse", merged, merged_lse, "the device");
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<test::Case> cases;
  for (const std::int32_t dtype : {MLA_DTYPE_BFLOAT16, MLA_DTYPE_FLOAT16}) {
    const std::string name = test::dtype_name(dtype);
    cases.push_back({"device: golden fresh " + name, [=] { fresh(dtype); }});
    cases.push_back({"device: golden chunked " + name, [=] { chunked(dtype); }});
  }
  return test::run_on("90", argc, argv, cases);
}
