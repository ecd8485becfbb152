// Malformed runs of a backend object.
//
// SPDX-License-Identifier: Apache-2.0
#include "tensors.hpp"

namespace malformed {
namespace {

constexpr mla_status invalid = MLA_ERROR_INVALID_ARGUMENT;
constexpr std::int64_t tokens = 6, keys = 9;

const test::Model model{2, 8, 4, 8, 16};
const test::Offsets q_offsets{0, 4, 6}, kv_offsets{0, 2, 9};

/// Prepared for q_offsets and one chunk, shared by all calls.
mla_backend* prepared() {
  static mla::backend* const backend = [] {
    auto* made = new mla::backend("FLASHINFER", model.config());
    mla_context_chunk chunk = MLA_CONTEXT_CHUNK_INIT;
    chunk.num_requests = 2;
    chunk.query_start_loc = q_offsets.data();
    chunk.cu_seq_lens = kv_offsets.data();
    made->prepare_metadata(q_offsets, {&chunk, 1});
    return made;
  }();
  return backend->get();
}

mla_backend* unprepared() {
  static mla::backend* const backend = new mla::backend("FLASHINFER", model.config());
  return backend->get();
}

/// The tensors that both runs have.
struct Tensors {
  explicit Tensors(std::int64_t num_keys)
      : q(MLA_DTYPE_BFLOAT16, {tokens, model.heads, model.qk()}),
        k(MLA_DTYPE_BFLOAT16, {num_keys, model.heads, model.qk()}),
        v(MLA_DTYPE_BFLOAT16, {num_keys, model.heads, model.v}),
        out(MLA_DTYPE_BFLOAT16, {tokens, model.heads, model.v}),
        lse(MLA_DTYPE_FLOAT32, {model.heads, tokens}) {
    q.fill();
    k.fill();
    v.fill();
  }

  template <class Args>
  void hand_to(Args& args) {
    args.q = &q.view.value;
    args.k = &k.view.value;
    args.v = &v.view.value;
    args.out = &out.view.value;
    args.lse = &lse.view.value;
  }

  bool untouched() const {
    return q.untouched() && k.untouched() && v.untouched() && out.untouched() && lse.untouched();
  }

  Operand q, k, v, out, lse;
};

struct NewTokens {
  NewTokens() : tensors(tokens), args(MLA_NEW_TOKENS_ARGS_INIT) { tensors.hand_to(args.value); }

  mla_status invoke() { return mla_run_prefill_new_tokens(backend, pointer); }
  bool untouched() const { return tensors.untouched(); }

  Tensors tensors;
  Padded<mla_new_tokens_args> args;
  const mla_new_tokens_args* pointer = &args.value;
  mla_backend* backend = prepared();
  float scale = 0.5F;
  alignas(64) std::uint8_t scratch[64] = {};
};

struct ContextChunk {
  ContextChunk()
      : tensors(keys), chunk(MLA_CONTEXT_CHUNK_INIT), args(MLA_CONTEXT_CHUNK_ARGS_INIT) {
    tensors.hand_to(args.value);
    args.value.chunk = &chunk.value;
    chunk.value.index = 0;
    chunk.value.num_requests = 2;
    chunk.value.query_start_loc = q_loc.data();
    chunk.value.cu_seq_lens = kv_loc.data();
  }

  mla_status invoke() { return mla_run_prefill_context_chunk(backend, pointer); }
  bool untouched() const { return tensors.untouched(); }

  Tensors tensors;
  test::Offsets q_loc = q_offsets, kv_loc = kv_offsets;
  Padded<mla_context_chunk> chunk;
  Padded<mla_context_chunk_args> args;
  const mla_context_chunk_args* pointer = &args.value;
  mla_backend* backend = prepared();
  alignas(64) std::uint8_t scratch[64] = {};
};

template <class Call>
std::vector<Rule<Call>> common_rules(bool lse_may_be_null) {
  std::vector<Rule<Call>> rules;
  add_struct_rules(rules, "args", [](Call& c) -> auto& { return c.args; },
                   [](Call& c) -> auto& { return c.pointer; });
#define TENSOR(name, nullable)                                               \
  add_tensor_rules(rules, #name, [](Call& c) -> auto& { return c.tensors.name; }, \
                   [](Call& c) -> auto& { return c.args.value.name; }, Rows::by_offsets, nullable); \
  add_workspace_rule(rules, #name, [](Call& c) -> auto& { return c.tensors.name; })
  TENSOR(q, false);
  TENSOR(k, false);
  TENSOR(v, false);
  TENSOR(out, false);
  TENSOR(lse, lse_may_be_null);
#undef TENSOR
  const auto add = [&](const char* field, mla_status status, auto apply) {
    rules.push_back({field, status, apply});
  };
  add("backend", invalid, [](Call& c, Random&) { c.backend = nullptr; });
  add("prepare_metadata", invalid, [](Call& c, Random&) { c.backend = unprepared(); });
  // Two different ones, so that no set of rules agrees on a dtype.
  add("k", invalid, [](Call& c, Random&) { c.tensors.k.view.value.dtype = MLA_DTYPE_FLOAT16; });
  add("v", invalid, [](Call& c, Random&) { c.tensors.v.view.value.dtype = MLA_DTYPE_FLOAT32; });
  add("lse", invalid, [](Call& c, Random&) { c.tensors.lse.view.value.dtype = MLA_DTYPE_FLOAT16; });
  add("out", invalid, [](Call& c, Random& random) {
    Tensors& t = c.tensors;
    t.out.view.value.data =
        random.any_of({t.q.view.value.data, t.k.view.value.data, t.v.view.value.data});
  });
  add("out.strides", invalid, [](Call& c, Random&) { c.tensors.out.view.value.strides[0] = 0; });
  add("lse", invalid,
      [](Call& c, Random&) { c.tensors.lse.view.value.data = c.tensors.out.array.view().data; });
  add("stream", invalid, [](Call& c, Random&) { c.args.value.stream = c.scratch; });
  add("workspace", invalid, [](Call& c, Random& random) {
    c.args.value.workspace = c.scratch;
    c.args.value.workspace_size = random.any_of<std::int64_t>({1, 63, -1, INT64_MIN});
  });
  add("address space", invalid, [](Call& c, Random&) {
    c.args.value.workspace = c.scratch;
    c.args.value.workspace_size = INT64_MAX;
  });
  return rules;
}

std::vector<Rule<NewTokens>> new_tokens_rules() {
  std::vector<Rule<NewTokens>> rules = common_rules<NewTokens>(true);
  add_output_scale_rules(rules, [](NewTokens& c) -> auto& { return c.tensors.out.view.value; },
                         [](NewTokens& c) -> auto& { return c.args.value.output_scale; },
                         [](NewTokens& c) -> auto& { return c.scale; });
  // Keys of tokens that q does not have; two rows, which no other rule adds to q.
  const auto lengthen = [](mla_tensor& t) {
    if (t.shape[0] >= 0 && t.shape[0] <= 100) t.shape[0] += 2;  // else broken already
  };
  rules.push_back({"k.shape[0]", invalid,
                   [=](NewTokens& c, Random&) { lengthen(c.tensors.k.view.value); }});
  rules.push_back({"v.shape[0]", invalid,
                   [=](NewTokens& c, Random&) { lengthen(c.tensors.v.view.value); }});
  return rules;
}

std::vector<Rule<ContextChunk>> chunk_rules() {
  std::vector<Rule<ContextChunk>> rules = common_rules<ContextChunk>(false);
  add_struct_rules(rules, "chunk", [](ContextChunk& c) -> auto& { return c.chunk; },
                   [](ContextChunk& c) -> auto& { return c.args.value.chunk; });
  const auto add = [&](const char* field, auto apply) { rules.push_back({field, invalid, apply}); };
  add("out", [](ContextChunk& c, Random&) {
    c.tensors.out.view.value.dtype = MLA_DTYPE_FLOAT8_E4M3FN;
  });
  add("index", [](ContextChunk& c, Random& random) {
    c.chunk.value.index = random.any_of<std::int32_t>({1, 7, -2, INT32_MIN, INT32_MAX});
  });
  add("num_requests", [](ContextChunk& c, Random& random) {
    c.chunk.value.num_requests = random.any_of<std::int32_t>({-1, INT32_MIN, random.negative()});
  });
  add("query_start_loc", [](ContextChunk& c, Random&) { c.chunk.value.query_start_loc = nullptr; });
  add("device_query_start_loc",
      [](ContextChunk& c, Random&) { c.args.value.device_query_start_loc = c.q_loc.data(); });
  add("device_cu_seq_lens",
      [](ContextChunk& c, Random&) { c.args.value.device_cu_seq_lens = c.kv_loc.data(); });
  add("cu_seq_lens", [](ContextChunk& c, Random&) { c.chunk.value.cu_seq_lens = nullptr; });
  add("query_start_loc", [](ContextChunk& c, Random& random) {
    c.q_loc[1] = random.any_of<std::int32_t>({-1, 7, INT32_MIN, INT32_MAX});
  });
  add("query_start_loc", [](ContextChunk& c, Random& random) {
    c.q_loc[0] = random.any_of<std::int32_t>({-1, 1, INT32_MAX});
  });
  add("query_start_loc", [](ContextChunk& c, Random& random) {
    c.q_loc[2] = random.any_of<std::int32_t>({0, -5, 8, INT32_MAX});
  });
  add("cu_seq_lens", [](ContextChunk& c, Random& random) {
    c.kv_loc[1] = random.any_of<std::int32_t>({-1, 12, INT32_MIN, INT32_MAX});
  });
  add("cu_seq_lens", [](ContextChunk& c, Random& random) {
    c.kv_loc[2] = random.any_of<std::int32_t>({0, -5, 12, INT32_MAX});
  });
  return rules;
}

/// Questions about an object: a handle and one place for the answer.
struct Question {
  mla_backend* backend = prepared();
  std::int32_t answer = 77;
  std::int32_t* place = &answer;
  std::int64_t bytes = 77;
  std::int64_t* bytes_place = &bytes;

  bool untouched() const { return answer == 77 && bytes == 77; }
};

struct SupportsOut : Question {
  mla_status invoke() { return mla_supports_out(backend, place); }
};

struct SupportsQuantOutput : Question {
  mla_status invoke() { return mla_supports_quant_output(backend, dtype, place); }
  std::int32_t dtype = MLA_DTYPE_FLOAT8_E4M3FN;
};

struct WorkspaceSize : Question {
  mla_status invoke() { return mla_workspace_size(backend, bytes_place); }
};

struct WarmUp : Question {
  mla_status invoke() { return mla_warm_up(backend); }
};

template <class Call>
std::vector<Rule<Call>> question_rules(const char* place) {
  return {{"backend", invalid, [](Call& c, Random&) { c.backend = nullptr; }},
          {place, invalid, [](Call& c, Random&) {
             c.place = nullptr;
             c.bytes_place = nullptr;
           }}};
}

}  // namespace

std::vector<Function> run_functions() {
  std::vector<Rule<WorkspaceSize>> workspace = question_rules<WorkspaceSize>("bytes");
  workspace.push_back({"prepare_metadata", invalid,
                       [](WorkspaceSize& c, Random&) { c.backend = unprepared(); }});
  std::vector<Rule<SupportsQuantOutput>> quant = question_rules<SupportsQuantOutput>("supports");
  quant.push_back({"dtype", invalid, [](SupportsQuantOutput& c, Random& random) {
                     c.dtype = wrong_dtype(random);
                   }});
  return {function<NewTokens>("mla_run_prefill_new_tokens", new_tokens_rules()),
          function<ContextChunk>("mla_run_prefill_context_chunk", chunk_rules()),
          function<SupportsOut>("mla_supports_out", question_rules<SupportsOut>("supports")),
          function<SupportsQuantOutput>("mla_supports_quant_output", quant),
          function<WorkspaceSize>("mla_workspace_size", workspace),
          function<WarmUp>("mla_warm_up",
                           {{"backend", invalid, [](WarmUp& c, Random&) { c.backend = nullptr; }}})};
}

}  // namespace malformed
