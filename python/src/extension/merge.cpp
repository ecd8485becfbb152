#include "arguments.h"
#include "bindings.h"
#include "tensor_argument.h"

namespace mla_python {

namespace {

void merge_attn_states(nb::handle output, nb::handle prefix_output, nb::handle prefix_lse,
                       nb::handle suffix_output, nb::handle suffix_lse, nb::handle output_lse,
                       nb::handle prefill_tokens_with_context, nb::handle output_scale,
                       std::int32_t device_type, std::int32_t device_id, nb::handle stream) {
  mla_merge_args args = MLA_MERGE_ARGS_INIT;
  const Place place = place_argument(device_type, device_id, stream);
  args.stream = place.stream;
  const TensorArgument merged(output, "output", args.output, role::output, place);
  const TensorArgument merged_lse(output_lse, "output_lse", args.output_lse, role::float32_output,
                                  place);
  const TensorArgument prefix(prefix_output, "prefix_output", args.prefix_output, role::input,
                              place);
  const TensorArgument lse_of_prefix(prefix_lse, "prefix_lse", args.prefix_lse,
                                     role::float32_input, place);
  const TensorArgument suffix(suffix_output, "suffix_output", args.suffix_output, role::input,
                              place);
  const TensorArgument lse_of_suffix(suffix_lse, "suffix_lse", args.suffix_lse,
                                     role::float32_input, place);
  const FloatArgument scale(output_scale, "output_scale", args.output_scale);
  if (!prefill_tokens_with_context.is_none()) {
    args.prefill_tokens_with_context =
        int64_argument(prefill_tokens_with_context, "prefill_tokens_with_context");
  }
  call_library([&] { return mla_merge_attn_states(&args); });
}

}  // namespace

void bind_merge(nb::module_ &module) {
  define(module, "merge_attn_states", &merge_attn_states);
}

}  // namespace mla_python
