#include <string>
#include <vector>

#include "arguments.h"
#include "bindings.h"
#include "integers.h"
#include "tensor_argument.h"

namespace mla_python {

namespace {

/// Whose rows are whose; lengths that C cannot see are compared here.
class RequestsArgument {
 public:
  /// After `q` has been read.
  RequestsArgument(nb::handle cu_seqlens_q, nb::handle cu_seqlens_k, nb::handle k_begin,
                   nb::handle k_count, mla_attention_args &args) {
    std::size_t requests = 1;
    if (!cu_seqlens_q.is_none()) {
      cu_seqlens_q_ = offsets_argument(cu_seqlens_q, "cu_seqlens_q");
      args.cu_seqlens_q = cu_seqlens_q_.data();
      requests = cu_seqlens_q_.size() - 1;
      args.num_requests = static_cast<std::int32_t>(requests);
    } else if (args.q && args.q->ndim == 4) {
      requests = static_cast<std::size_t>(args.q->shape[0]);
    }
    if (!cu_seqlens_k.is_none()) {
      cu_seqlens_k_ = offsets_argument(cu_seqlens_k, "cu_seqlens_k");
      require_size(cu_seqlens_k_, requests + 1, "cu_seqlens_k");
      args.cu_seqlens_k = cu_seqlens_k_.data();
    }
    args.k_begin = read(k_begin, "k_begin", requests, k_begin_);
    args.k_count = read(k_count, "k_count", requests, k_count_);
  }
  RequestsArgument(const RequestsArgument &) = delete;
  RequestsArgument &operator=(const RequestsArgument &) = delete;

  /// Rows from here on are no request's; none where there are no offsets.
  std::int64_t end(std::int64_t rows) const {
    return cu_seqlens_q_.empty() ? rows : cu_seqlens_q_.back();
  }

 private:
  static const std::int32_t *read(nb::handle value, const char *name, std::size_t requests,
                                  std::vector<std::int32_t> &values) {
    if (value.is_none()) return nullptr;
    values = int32_array_argument(value, name);
    require_size(values, requests, name);
    // Given, though it may be empty.
    values.reserve(1);
    return values.data();
  }

  static void require_size(const std::vector<std::int32_t> &values, std::size_t size,
                           const char *name) {
    if (values.size() == size) return;
    raise(PyExc_ValueError, std::string(name) + ": has " + std::to_string(values.size()) +
                                " entries, must have " + std::to_string(size) +
                                ", as q and cu_seqlens_q say");
  }

  std::vector<std::int32_t> cu_seqlens_q_, cu_seqlens_k_, k_begin_, k_count_;
};

void attention(nb::handle q, nb::handle k, nb::handle v, nb::handle out, nb::handle lse,
               nb::handle scale, std::int32_t causal, nb::handle cu_seqlens_q,
               nb::handle cu_seqlens_k, nb::handle k_begin, nb::handle k_count,
               nb::handle output_scale, bool is_new_out) {
  mla_attention_args args = MLA_ATTENTION_ARGS_INIT;
  args.causal = causal;
  args.scale = float_argument(scale, "scale");
  const TensorArgument queries(q, "q", args.q);
  const TensorArgument keys(k, "k", args.k);
  const TensorArgument values(v, "v", args.v);
  TensorArgument output(out, "out", args.out, role::output);
  TensorArgument sums(lse, "lse", args.lse, role::float32_output);
  const RequestsArgument requests(cu_seqlens_q, cu_seqlens_k, k_begin, k_count, args);
  const FloatArgument output_divisor(output_scale, "output_scale", args.output_scale);
  if (args.q && args.q->ndim == 3) {
    const std::int64_t end = requests.end(args.q->shape[0]);
    if (is_new_out) output.clear_rows_from(end);
    sums.clear_tokens_from(end);
  }
  call_library([&] { return mla_attention(&args); });
}

}  // namespace

void bind_attention(nb::module_ &module) { define(module, "attention", &attention); }

}  // namespace mla_python
