// Attention in one call.
//
// SPDX-License-Identifier: Apache-2.0
#include "../failing_allocations.hpp"
#include "call.hpp"

namespace allocation {
namespace {

constexpr std::int64_t rows = 70, keys = 500, heads = 4, kv_heads = 2, dim = 24, v_dim = 16;
const std::int32_t cu_seqlens_q[] = {0, 64, 65, 70}, k_begin[] = {0, 30, 400}, k_count[] = {64, 420, 90};

/// Requests of either form.
struct OneCall {
  OneCall()
      : q(MLA_DTYPE_BFLOAT16, {rows, heads, dim}),
        k(MLA_DTYPE_BFLOAT16, {keys, kv_heads, dim}),
        v(MLA_DTYPE_BFLOAT16, {keys, kv_heads, v_dim}),
        out(MLA_DTYPE_BFLOAT16, {rows, heads, v_dim}),
        lse(MLA_DTYPE_FLOAT32, {heads, rows}) {
    std::mt19937 random(1);
    for (test::Array* input : {&q, &k, &v}) input->fill(random);
    args.q = &q.view();
    args.k = &k.view();
    args.v = &v.view();
    args.out = &out.view();
    args.lse = &lse.view();
    args.scale = 0.2;
    args.causal = MLA_CAUSAL_END;
    args.num_requests = 3;
    args.cu_seqlens_q = cu_seqlens_q;
    args.k_begin = k_begin;
    args.k_count = k_count;
  }

  test::Array q, k, v, out, lse;
  mla_attention_args args = MLA_ATTENTION_ARGS_INIT;
  std::int64_t bytes = 0;
};

}  // namespace

void plans_are_trimmed() {
  auto& one = kept<OneCall>();
  // What is made once and for all.
  mla::attention(one.args);
  mla::check(mla_trim(nullptr));
  const long blocks = failing::live_blocks();
  // Another plan, beside which the first may still be there.
  one.args.causal = MLA_CAUSAL_START;
  mla::attention(one.args);
  CHECK(failing::live_blocks() > blocks);
  mla::check(mla_trim(nullptr));
  EXPECT(failing::live_blocks() == blocks, "%ld blocks are left",
         failing::live_blocks() - blocks);
}

void arrays_are_refused() {
  auto& one = kept<OneCall>();
  mla::check(mla_trim(nullptr));
  failing::start(1, true);
  const mla_status status = mla_attention(&one.args);
  failing::stop();
  EXPECT(status == MLA_ERROR_OUT_OF_MEMORY, "%s", mla_status_name(status));
}

std::vector<Call> attention_calls() {
  auto& one = kept<OneCall>();
  Call run, size;
  run.name = "mla_attention";
  run.call = [&] { return mla_attention(&one.args); };
  run.outputs = {elements_of(one.out), elements_of(one.lse)};
  // A plan of its own each time.
  run.before = [] { mla_trim(nullptr); };
  size.name = "mla_attention_workspace_size";
  size.call = [&] { return mla_attention_workspace_size(&one.args, &one.bytes); };
  size.outputs = {value_of(one.bytes)};
  size.before = run.before;
  // What is told of it takes memory, too.
  Call told = run;
  told.name = "mla_attention that is told of";
  told.before = [] {
    mla_trim(nullptr);
    mla_set_verbose(2, [](void*, std::int32_t, const char*) {}, nullptr);
  };
  told.undo = [] { mla_set_verbose(0, nullptr, nullptr); };
  return {run, told, size};
}

}  // namespace allocation
