// Malformed merges.
//
// SPDX-License-Identifier: Apache-2.0
#include "tensors.hpp"

namespace malformed {
namespace {

constexpr mla_status invalid = MLA_ERROR_INVALID_ARGUMENT;
constexpr std::int64_t tokens = 5, heads = 2, dim = 8;

struct Merge {
  Merge()
      : output(MLA_DTYPE_BFLOAT16, {tokens, heads, dim}),
        prefix_output(MLA_DTYPE_BFLOAT16, {tokens, heads, dim}),
        suffix_output(MLA_DTYPE_BFLOAT16, {tokens, heads, dim}),
        output_lse(MLA_DTYPE_FLOAT32, {heads, tokens}),
        prefix_lse(MLA_DTYPE_FLOAT32, {heads, tokens}),
        suffix_lse(MLA_DTYPE_FLOAT32, {heads, tokens}),
        args(MLA_MERGE_ARGS_INIT) {
    for (Operand* input : {&prefix_output, &suffix_output, &prefix_lse, &suffix_lse}) input->fill();
    args.value.output = &output.view.value;
    args.value.output_lse = &output_lse.view.value;
    args.value.prefix_output = &prefix_output.view.value;
    args.value.prefix_lse = &prefix_lse.view.value;
    args.value.suffix_output = &suffix_output.view.value;
    args.value.suffix_lse = &suffix_lse.view.value;
  }

  mla_status invoke() { return mla_merge_attn_states(pointer); }
  bool untouched() const {
    return output.untouched() && output_lse.untouched() && prefix_output.untouched() &&
           prefix_lse.untouched() && suffix_output.untouched() && suffix_lse.untouched();
  }

  Operand output, prefix_output, suffix_output, output_lse, prefix_lse, suffix_lse;
  Padded<mla_merge_args> args;
  const mla_merge_args* pointer = &args.value;
  float scale = 1.0F;
};

std::vector<Rule<Merge>> rules() {
  std::vector<Rule<Merge>> all;
  add_struct_rules(all, "args", [](Merge& c) -> auto& { return c.args; },
                   [](Merge& c) -> auto& { return c.pointer; });
#define TENSOR(name, nullable)                                          \
  add_tensor_rules(all, #name, [](Merge& c) -> auto& { return c.name; }, \
                   [](Merge& c) -> auto& { return c.args.value.name; }, Rows::by_shape, nullable)
  TENSOR(output, false);
  TENSOR(output_lse, true);
  TENSOR(prefix_output, false);
  TENSOR(prefix_lse, false);
  TENSOR(suffix_output, false);
  TENSOR(suffix_lse, false);
#undef TENSOR
  const auto add = [&](const char* field, auto apply) { all.push_back({field, invalid, apply}); };
  add("prefill_tokens_with_context", [](Merge& c, Random& random) {
    c.args.value.prefill_tokens_with_context =
        random.any_of<std::int64_t>({-2, tokens + 1, INT64_MIN, INT64_MAX});
  });
  add_output_scale_rules(all, [](Merge& c) -> auto& { return c.output.view.value; },
                         [](Merge& c) -> auto& { return c.args.value.output_scale; },
                         [](Merge& c) -> auto& { return c.scale; });
  add("suffix_output",
      [](Merge& c, Random&) { c.suffix_output.view.value.dtype = MLA_DTYPE_FLOAT16; });
  add("suffix_lse", [](Merge& c, Random&) { c.suffix_lse.view.value.dtype = MLA_DTYPE_FLOAT16; });
  // Overlaps that are not the very same view: one row further.
  add("output", [](Merge& c, Random& random) {
    Operand& side = random.between(0, 1) == 0 ? c.prefix_output : c.suffix_output;
    c.output.view.value.data =
        static_cast<char*>(side.array.view().data) + heads * dim * 2;
  });
  add("output", [](Merge& c, Random& random) {
    Operand& side = random.between(0, 1) == 0 ? c.prefix_lse : c.suffix_lse;
    c.output.view.value.data = side.array.view().data;
  });
  add("stream", [](Merge& c, Random&) { c.args.value.stream = &c.scale; });
  return all;
}

}  // namespace

std::vector<Function> merge_functions() {
  return {function<Merge>("mla_merge_attn_states", rules())};
}

}  // namespace malformed
