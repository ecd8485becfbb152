// The recorded step, for every backend on every kernel table and for every dtype.
//
// SPDX-License-Identifier: Apache-2.0
#include "../../examples/c/safetensors.h"
#include "support.hpp"

namespace {

constexpr double max_out_error = 4e-3, max_lse_error = 1e-3;

/// A recorded tensor in the dtype asked for.
test::Array recorded(const st_file& file, const char* name, std::int32_t dtype) {
  mla_tensor view;
  EXPECT(st_tensor(&file, name, &view) == 0, "the recording lacks %s", name);
  std::vector<std::int64_t> shape(view.shape, view.shape + view.ndim);
  test::Array made(view.dtype == MLA_DTYPE_FLOAT32 ? MLA_DTYPE_FLOAT32 : dtype, shape);
  made.each([&](std::int64_t i, std::int64_t j, std::int64_t k) {
    const std::int64_t last = view.ndim == 3 ? k : 0;
    const auto offset = static_cast<std::size_t>(i * view.strides[0] + j * view.strides[1] + last);
    const auto* bytes = static_cast<const std::uint8_t*>(view.data);
    made.set(i, j, k, test::load(bytes + offset * test::element_size(view.dtype), view.dtype));
  });
  return made;
}

test::Offsets offsets(const st_file& file, const char* name) {
  std::int32_t count = 0;
  const std::int32_t* values = st_int32(&file, name, &count);
  EXPECT(values != nullptr, "the recording lacks %s", name);
  return {values, values + count};
}

struct File {
  explicit File(const char* name) : path(std::string("Tests/Data/") + name) {
    EXPECT(st_open(&file, path.c_str()) == 0, "%s cannot be read", path.c_str());
  }
  ~File() { st_close(&file); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  std::string path;
  st_file file;
};

/// Compares the first rows of a recorded result with what came out.
void expect_recorded(const st_file& file, const char* out_name, const char* lse_name,
                     const test::Array& out, const test::Array& lse, const std::string& what) {
  const test::Array expected = recorded(file, out_name, MLA_DTYPE_FLOAT32);
  const test::Array expected_lse = recorded(file, lse_name, MLA_DTYPE_FLOAT32);
  test::RelativeError error;
  out.each([&](std::int64_t i, std::int64_t j, std::int64_t k) {
    error.add(out.at(i, j, k), expected.at(i, j, k));
  });
  EXPECT(error.value() <= max_out_error, "%s: %s is off by %.2e", what.c_str(), out_name,
         error.value());
  lse.each([&](std::int64_t i, std::int64_t j, std::int64_t) {
    const double difference = std::fabs(lse.at(i, j) - expected_lse.at(i, j));
    EXPECT(difference <= max_lse_error, "%s: %s is off by %.2e", what.c_str(), lse_name,
           difference);
  });
}

/// An attention call whose tensors are recorded ones.
test::Attention loaded(const st_file& file, std::int32_t dtype, const char* q, const char* k,
                       const char* v, const char* q_loc, const char* kv_loc, bool causal) {
  test::Model model;
  model.heads = 4;
  test::Attention made(model, dtype, offsets(file, q_loc), offsets(file, kv_loc), causal, 1);
  const test::Array all = recorded(file, q, dtype);
  made.q.each([&](std::int64_t i, std::int64_t j, std::int64_t d) {
    made.q.set(i, j, d, all.at(i, j, d));
  });
  made.k = recorded(file, k, dtype);
  made.v = recorded(file, v, dtype);
  return made;
}

void fresh(std::int32_t dtype) {
  const File recording("dsv2_fresh.safetensors");
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
  const File recording("dsv2_chunked.safetensors");
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
