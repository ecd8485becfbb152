// Malformed calls of attention without a backend.
//
// SPDX-License-Identifier: Apache-2.0
#include "tensors.hpp"

namespace malformed {
namespace {

constexpr mla_status invalid = MLA_ERROR_INVALID_ARGUMENT;
constexpr std::int64_t heads = 4, kv_heads = 2, dim = 12, v_dim = 10;

/// The tensors of a call and its arguments, without its requests.
struct OneCall {
  OneCall(std::vector<std::int64_t> rows, std::vector<std::int64_t> keys,
          std::vector<std::int64_t> values, std::vector<std::int64_t> results,
          std::vector<std::int64_t> sums)
      : q(MLA_DTYPE_BFLOAT16, std::move(rows)),
        k(MLA_DTYPE_BFLOAT16, std::move(keys)),
        v(MLA_DTYPE_BFLOAT16, std::move(values)),
        out(MLA_DTYPE_BFLOAT16, std::move(results)),
        lse(MLA_DTYPE_FLOAT32, std::move(sums)),
        args(MLA_ATTENTION_ARGS_INIT) {
    for (Operand* input : {&q, &k, &v}) input->fill();
    mla_attention_args& a = args.value;
    a.causal = MLA_CAUSAL_END;
    a.scale = 0.3;
    a.q = &q.view.value;
    a.k = &k.view.value;
    a.v = &v.view.value;
    a.out = &out.view.value;
    a.lse = &lse.view.value;
    a.k_begin = k_begin.data();
    a.k_count = k_count.data();
  }

  mla_status invoke() { return mla_attention(pointer); }
  bool untouched() const {
    return q.untouched() && k.untouched() && v.untouched() && out.untouched() && lse.untouched();
  }

  Operand q, k, v, out, lse;
  /// Of requests with 2 and 7 keys, or 7 each.
  test::Offsets k_begin{0, 1}, k_count{2, 5};
  Padded<mla_attention_args> args;
  const mla_attention_args* pointer = &args.value;
  float scale = 0.5F;
  alignas(64) std::uint8_t scratch[64] = {};
};

struct ByOffsets : OneCall {
  ByOffsets()
      : OneCall({6, heads, dim}, {9, kv_heads, dim}, {9, kv_heads, v_dim}, {6, heads, v_dim},
                {heads, 6}) {
    args.value.num_requests = 2;
    args.value.cu_seqlens_q = cu_seqlens_q.data();
    args.value.cu_seqlens_k = cu_seqlens_k.data();
  }

  test::Offsets cu_seqlens_q{0, 4, 6}, cu_seqlens_k{0, 2, 9};
};

struct Batch : OneCall {
  Batch()
      : OneCall({2, heads, 3, dim}, {2, kv_heads, 7, dim}, {2, kv_heads, 7, v_dim},
                {2, heads, 3, v_dim}, {2, heads, 3}) {}

  test::Offsets offsets{0, 1, 2};
};

template <class Call>
struct WorkspaceSize : Call {
  mla_status invoke() { return mla_attention_workspace_size(this->pointer, place); }
  bool untouched() const { return bytes == 77 && Call::untouched(); }

  std::int64_t bytes = 77;
  std::int64_t* place = &bytes;
};

template <class Call>
std::vector<Rule<Call>> common_rules(Rows rows) {
  std::vector<Rule<Call>> rules;
  add_struct_rules(rules, "args", [](Call& c) -> auto& { return c.args; },
                   [](Call& c) -> auto& { return c.pointer; });
  // Steps of their own: sizes that agree are no fault here.
#define TENSOR(name, nullable, step)                                        \
  add_tensor_rules(rules, #name, [](Call& c) -> auto& { return c.name; },    \
                   [](Call& c) -> auto& { return c.args.value.name; }, rows, nullable, step)
  TENSOR(q, false, 1);
  TENSOR(k, false, 2);
  TENSOR(v, false, 4);
  rows = Rows::by_shape;
  TENSOR(out, false, 8);
  TENSOR(lse, true, 16);
#undef TENSOR
  add_output_scale_rules(rules, [](Call& c) -> auto& { return c.out.view.value; },
                         [](Call& c) -> auto& { return c.args.value.output_scale; },
                         [](Call& c) -> auto& { return c.scale; });
  const auto add = [&](const char* field, auto apply) { rules.push_back({field, invalid, apply}); };
  add("causal", [](Call& c, Random& random) {
    c.args.value.causal = random.any_of<std::int32_t>({3, INT32_MAX, random.negative()});
  });
  add("scale", [](Call& c, Random& random) {
    c.args.value.scale = random.any_of<double>({HUGE_VAL, -HUGE_VAL, std::nan(""), 1e300, 1e-300});
  });
  add("max_isa", [](Call& c, Random& random) {
    c.args.value.max_isa = random.any_of<std::int32_t>({8, random.negative(), INT32_MAX});
  });
  // Two different ones, so that no set of rules agrees on a dtype.
  add("k", [](Call& c, Random&) { c.k.view.value.dtype = MLA_DTYPE_FLOAT16; });
  add("v", [](Call& c, Random&) { c.v.view.value.dtype = MLA_DTYPE_FLOAT32; });
  add("lse", [](Call& c, Random&) { c.lse.view.value.dtype = MLA_DTYPE_FLOAT16; });
  // Of four heads of queries one is left over.
  add("k.shape[1]", [](Call& c, Random&) {
    c.k.view.value.shape[1] = c.v.view.value.shape[1] = 3;
  });
  add("out", [](Call& c, Random& random) {
    c.out.view.value.data =
        random.any_of({c.q.view.value.data, c.k.view.value.data, c.v.view.value.data});
  });
  add("lse", [](Call& c, Random&) { c.lse.view.value.data = c.out.array.view().data; });
  add("k_begin", [](Call& c, Random& random) {
    c.k_begin[1] = random.any_of<std::int32_t>({8, INT32_MAX, random.negative()});
  });
  add("k_count", [](Call& c, Random& random) {
    c.k_count[1] = random.any_of<std::int32_t>({7, INT32_MAX, random.negative()});
  });
  add("stream", [](Call& c, Random&) { c.args.value.stream = c.scratch; });
  return rules;
}

template <class Call>
std::vector<Rule<Call>> offset_rules() {
  std::vector<Rule<Call>> rules = common_rules<Call>(Rows::by_offsets);
  const auto add = [&](const char* field, auto apply) { rules.push_back({field, invalid, apply}); };
  add("num_requests", [](Call& c, Random& random) {
    c.args.value.num_requests =
        random.any_of<std::int32_t>({(1 << 20) + 1, INT32_MAX, random.negative()});
  });
  add("num_requests", [](Call& c, Random&) { c.args.value.cu_seqlens_q = nullptr; });
  add("cu_seqlens_q", [](Call& c, Random& random) {
    c.cu_seqlens_q[1] = random.any_of<std::int32_t>({7, INT32_MAX, random.negative()});
  });
  add("cu_seqlens_q", [](Call& c, Random& random) {
    c.cu_seqlens_q[0] = random.any_of<std::int32_t>({1, INT32_MAX, random.negative()});
  });
  add("cu_seqlens_k", [](Call& c, Random& random) {
    c.cu_seqlens_k[2] = random.any_of<std::int32_t>({1, 10, INT32_MAX, random.negative()});
  });
  // Those of q do not fit.
  add("cu_seqlens_k", [](Call& c, Random&) {
    c.args.value.cu_seqlens_k = c.args.value.k_begin = c.args.value.k_count = nullptr;
  });
  return rules;
}

template <class Call>
std::vector<Rule<Call>> batch_rules() {
  std::vector<Rule<Call>> rules = common_rules<Call>(Rows::by_shape);
  const auto add = [&](const char* field, auto apply) { rules.push_back({field, invalid, apply}); };
  add("num_requests", [](Call& c, Random& random) {
    c.args.value.num_requests =
        random.any_of<std::int32_t>({100, INT32_MAX, random.negative()});
  });
  add("cu_seqlens_q", [](Call& c, Random&) { c.args.value.cu_seqlens_q = c.offsets.data(); });
  add("cu_seqlens_k", [](Call& c, Random&) { c.args.value.cu_seqlens_k = c.offsets.data(); });
  return rules;
}

template <class Call>
Function call_function(std::vector<Rule<Call>> rules) {
  rules.push_back({"workspace", invalid, [](Call& c, Random& random) {
                     c.args.value.workspace = c.scratch;
                     c.args.value.workspace_size =
                         random.any_of<std::int64_t>({1, 63, -1, INT64_MIN});
                   }});
  return function<Call>("mla_attention", rules);
}

template <class Call>
Function size_function(std::vector<Rule<Call>> rules) {
  rules.push_back({"bytes", invalid, [](Call& c, Random&) { c.place = nullptr; }});
  return function<Call>("mla_attention_workspace_size", rules);
}

}  // namespace

std::vector<Function> attention_functions() {
  return {call_function(offset_rules<ByOffsets>()), call_function(batch_rules<Batch>()),
          size_function(offset_rules<WorkspaceSize<ByOffsets>>()),
          size_function(batch_rules<WorkspaceSize<Batch>>())};
}

}  // namespace malformed
