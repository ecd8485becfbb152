// The recorded step, for every backend on every kernel table and for every dtype.
//
// SPDX-License-Identifier: Apache-2.0
#include "recording.hpp"
#include "support.hpp"

namespace {

using test::expect_recorded;
using test::loaded;

void fresh(std::int32_t dtype) {
  const test::Recording recording("dsv2_fresh.safetensors");
  const st_file& file = recording.file;
  test::Attention step =
      loaded(file, dtype, "q", "k", "v", "query_start_loc", "query_start_loc", true);
  test::each_backend(step.model, [&](mla::backend& backend, const std::string& what) {
    backend.prepare_metadata(step.q_loc);
    step.run_prepared(backend);
    expect_recorded(file, "out", "lse", step.out, step.lse, what);
    // With a workspace of the caller's, for which the library must not allocate.
    const test::Array by_library = step.out;
    std::vector<std::uint8_t> scratch(static_cast<std::size_t>(backend.workspace_size()));
    step.run_prepared(backend, {scratch.data(), static_cast<std::int64_t>(scratch.size())});
    EXPECT(step.out.bytes() == by_library.bytes(), "%s: other bits with a workspace", what.c_str());
  });
}

/// Merges the context into the new tokens' results, whose last request has none:
/// its rows are copied, as vLLM has it.
void merge_all(test::Attention& suffix, const test::Array& context,
               const test::Array& context_lse) {
  const std::int64_t rows = context.size(0), all = suffix.out.size(0);
  test::Array prefix(suffix.out.view().dtype, {all, suffix.model.heads, suffix.model.v});
  test::Array prefix_lse(MLA_DTYPE_FLOAT32, {suffix.model.heads, all});
  context.each([&](std::int64_t i, std::int64_t j, std::int64_t k) {
    prefix.set(i, j, k, context.at(i, j, k));
  });
  context_lse.each([&](std::int64_t i, std::int64_t j, std::int64_t) {
    prefix_lse.set(i, j, 0, context_lse.at(i, j));
  });
  mla::merge_attn_states(suffix.out.view(), &suffix.lse.view(), prefix.view(), prefix_lse.view(),
                         suffix.out.view(), suffix.lse.view(), rows);
}

void chunked(std::int32_t dtype) {
  const test::Recording recording("dsv2_chunked.safetensors");
  const st_file& file = recording.file;
  test::Attention suffix =
      loaded(file, dtype, "q", "k_new", "v_new", "query_start_loc", "query_start_loc", true);
  test::Attention chunks[] = {
      loaded(file, dtype, "q", "chunk0_k", "chunk0_v", "chunk0_query_start_loc",
             "chunk0_cu_seq_lens", false),
      loaded(file, dtype, "q", "chunk1_k", "chunk1_v", "chunk1_query_start_loc",
             "chunk1_cu_seq_lens", false)};
  const mla_context_chunk planned[] = {chunks[0].chunk(0), chunks[1].chunk(1)};
  test::each_backend(suffix.model, [&](mla::backend& backend, const std::string& what) {
    backend.prepare_metadata(suffix.q_loc, planned);
    suffix.run_prepared(backend);
    chunks[0].run_prepared(backend, {}, 0);
    chunks[1].run_prepared(backend, {}, 1);
    expect_recorded(file, "suffix_out", "suffix_lse", suffix.out, suffix.lse, what);
    expect_recorded(file, "chunk0_out", "chunk0_lse", chunks[0].out, chunks[0].lse, what);
    expect_recorded(file, "chunk1_out", "chunk1_lse", chunks[1].out, chunks[1].lse, what);
    test::Array& context = chunks[0].out;
    test::Array& context_lse = chunks[0].lse;
    mla::merge_attn_states(context.view(), &context_lse.view(), context.view(), context_lse.view(),
                           chunks[1].out.view(), chunks[1].lse.view());
    expect_recorded(file, "context_out", "context_lse", context, context_lse, what);
    merge_all(suffix, context, context_lse);
    expect_recorded(file, "out", "lse", suffix.out, suffix.lse, what);
  });
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<test::Case> cases;
  for (std::int32_t dtype : {MLA_DTYPE_BFLOAT16, MLA_DTYPE_FLOAT16, MLA_DTYPE_FLOAT32}) {
    const std::string name = test::dtype_name(dtype);
    cases.push_back({"golden fresh " + name, [=] { fresh(dtype); }});
    cases.push_back({"golden chunked " + name, [=] { chunked(dtype); }});
  }
  return test::run(argc, argv, cases);
}
