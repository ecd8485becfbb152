#include "merge.h"

#include "arguments.h"
#include "tensor_argument.h"

namespace mla_python {

namespace {

void merge_attn_states(nb::handle output, nb::handle prefix_output, nb::handle prefix_lse,
                       nb::handle suffix_output, nb::handle suffix_lse, nb::handle output_lse,
                       nb::handle prefill_tokens_with_context, nb::handle output_scale) {
  const TensorArgument output_view(output, "output", role::output);
  const TensorArgument output_lse_view(output_lse, "output_lse", role::float32_output);
  const TensorArgument prefix_output_view(prefix_output, "prefix_output");
  const TensorArgument prefix_lse_view(prefix_lse, "prefix_lse", role::float32_input);
  const TensorArgument suffix_output_view(suffix_output, "suffix_output");
  const TensorArgument suffix_lse_view(suffix_lse, "suffix_lse", role::float32_input);
  const FloatArgument scale(output_scale, "output_scale");
  mla_merge_args args = MLA_MERGE_ARGS_INIT;
  args.output = output_view.pointer();
  args.output_lse = output_lse_view.pointer();
  args.prefix_output = prefix_output_view.pointer();
  args.prefix_lse = prefix_lse_view.pointer();
  args.suffix_output = suffix_output_view.pointer();
  args.suffix_lse = suffix_lse_view.pointer();
  if (!prefill_tokens_with_context.is_none()) {
    args.prefill_tokens_with_context =
        int64_argument(prefill_tokens_with_context, "prefill_tokens_with_context");
  }
  args.output_scale = scale.pointer();
  call_library([&] { return mla_merge_attn_states(&args); });
}

}  // namespace

void bind_merge(nb::module_ &module) {
  module.def("merge_attn_states", &merge_attn_states, anything("output"),
             anything("prefix_output"), anything("prefix_lse"),
             anything("suffix_output"), anything("suffix_lse"),
             anything("output_lse"), anything("prefill_tokens_with_context"),
             anything("output_scale"));
}

}  // namespace mla_python
