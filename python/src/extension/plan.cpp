#include <memory>
#include <string>
#include <vector>

#include "arguments.h"
#include "bindings.h"
#include "integers.h"

namespace mla_python {

namespace {

nb::object tuple_or_none(const std::int32_t *values, std::int32_t count) {
  return values ? nb::object(nb::tuple(list_of(values, count))) : nb::none();
}

nb::dict described(const mla_context_plan_chunk &chunk) {
  const std::int32_t requests = chunk.request_end - chunk.request_begin;
  nb::dict fields;
  fields["index"] = chunk.index;
  fields["request_begin"] = chunk.request_begin;
  fields["request_end"] = chunk.request_end;
  fields["token_begin"] = chunk.token_begin;
  fields["token_end"] = chunk.token_end;
  fields["is_continuation"] = chunk.is_continuation != 0;
  fields["continuation_token_end"] = chunk.continuation_token_end;
  fields["starts"] = tuple_or_none(chunk.starts, requests);
  fields["seq_lens"] = tuple_or_none(chunk.seq_lens, requests);
  fields["query_start_loc"] = tuple_or_none(chunk.query_start_loc, requests + 1);
  fields["cu_seq_lens"] = tuple_or_none(chunk.cu_seq_lens, requests + 1);
  return fields;
}

nb::list plan_context_chunks(nb::handle context_lens, nb::handle row_budget, nb::handle block_size,
                             nb::handle query_start_loc, nb::handle max_context_chunk) {
  const auto lengths = int32_array_argument(context_lens, "context_lens");
  std::vector<std::int32_t> offsets;
  mla_context_plan_args args = MLA_CONTEXT_PLAN_ARGS_INIT;
  args.num_requests = static_cast<std::int32_t>(lengths.size());
  args.context_lens = pointer_or_null(lengths);
  if (!query_start_loc.is_none()) {
    offsets = int32_array_argument(query_start_loc, "query_start_loc", max_requests + 1);
    if (offsets.size() != lengths.size() + 1) {
      raise(PyExc_ValueError, "query_start_loc: has " + std::to_string(offsets.size()) +
                                  " entries, must have one more than the " +
                                  std::to_string(lengths.size()) + " of context_lens");
    }
    args.query_start_loc = offsets.data();
  }
  args.row_budget = int64_argument(row_budget, "row_budget");
  args.block_size = int32_argument(block_size, "block_size");
  args.max_context_chunk = int32_argument(max_context_chunk, "max_context_chunk");

  mla_context_plan *plan = nullptr;
  call_library([&] { return mla_plan_context_chunks(&args, &plan); });
  const std::unique_ptr<mla_context_plan, void (*)(mla_context_plan *)> owner(
      plan, mla_context_plan_destroy);
  nb::list chunks;
  for (std::int32_t i = 0; i < mla_context_plan_num_chunks(plan); ++i) {
    mla_context_plan_chunk chunk = MLA_CONTEXT_PLAN_CHUNK_INIT;
    call_library([&] { return mla_context_plan_get(plan, i, &chunk); });
    chunks.append(described(chunk));
  }
  return chunks;
}

}  // namespace

void bind_plan(nb::module_ &module) {
  define(module, "plan_context_chunks", &plan_context_chunks);
}

}  // namespace mla_python
