#include <algorithm>
#include <string>
#include <vector>

#include "arguments.h"
#include "bindings.h"
#include "borrowed_tensor.h"
#include "integers.h"
#include "tensor_argument.h"

namespace mla_python {

namespace {

/// 0 of what is no tensor: the library says why.
std::int64_t rows_of(const mla_index_select_args &args) {
  return args.q && args.q->ndim > 0 ? args.q->shape[0] : 0;
}

void index_store(nb::handle k, nb::handle index_cache, nb::handle slot_mapping,
                 std::int32_t format, std::int32_t scale_format, nb::handle hadamard) {
  mla_index_store_args args = MLA_INDEX_STORE_ARGS_INIT;
  const TensorArgument keys(k, "k", args.k);
  TensorArgument cache(index_cache, "index_cache", args.index_cache, role::filled_cache);
  cache.drop_heads();
  // One more than there may be: the library says why.
  const std::int64_t most = args.k && args.k->ndim == 2 ? args.k->shape[0] + 1 : INT32_MAX;
  const std::vector<std::int64_t> slots =
      int64_array_argument(slot_mapping, "slot_mapping", static_cast<std::size_t>(most));
  args.slot_mapping = pointer_or_null(slots);
  args.num_slots = static_cast<std::int64_t>(slots.size());
  args.format = format;
  args.scale_format = scale_format;
  args.hadamard = flag_argument(hadamard, "hadamard") ? 1 : 0;
  call_library([&] { return mla_index_store(&args); });
}

/// Where positions go: [tokens, topk] of int32 that may be written.
class IndicesArgument {
 public:
  /// After `q` has been read.
  IndicesArgument(nb::handle value, mla_index_select_args &args) {
    if (!tensor_.hold_buffer(value) && !tensor_.exchange(value, name)) tensor_.ask(value, name);
    if (!(tensor_.type() == DLDataType{kDLInt, 32, 1})) {
      raise(PyExc_TypeError, std::string(name) + ": must be of int32");
    }
    if (tensor_.ndim() != 2 || (tensor_.size(1) > 1 && elements(1) != 1)) {
      raise(PyExc_ValueError, std::string(name) + ": must have two dimensions, the last dense");
    }
    if (tensor_.writing() != Writing::allowed) {
      raise(PyExc_ValueError, std::string(name) + ": is written, and must be known to be writable");
    }
    const std::int64_t rows = rows_of(args);
    if (tensor_.size(0) != rows) {
      raise(PyExc_ValueError, std::string(name) + ".shape[0] = " + std::to_string(tensor_.size(0)) +
                                  ": must be " + std::to_string(rows) + ", the rows of q");
    }
    args.topk = narrowed<std::int32_t>(tensor_.size(1), std::string(name) + ".shape[1]");
    args.topk_indices = static_cast<std::int32_t *>(tensor_.data());
    args.topk_stride = rows > 1 ? elements(0) : args.topk;
  }

 private:
  static constexpr const char *name = "topk_indices";

  std::int64_t elements(int dimension) const {
    const std::int64_t bytes = tensor_.stride(dimension) * tensor_.stride_unit();
    if (bytes % 4 != 0) {
      raise(PyExc_ValueError, std::string(name) + ".strides[" + std::to_string(dimension) + "] = " +
                                  std::to_string(bytes) + " bytes: must be a multiple of 4");
    }
    return bytes / 4;
  }

  BorrowedTensor tensor_;
};

/// What a batch's tokens see, each in its request.
class IndexBatch {
 public:
  /// After `q` and the cache have been read.
  IndexBatch(nb::handle query_start_loc, nb::handle context_lens, nb::handle visible_keys,
             nb::handle block_table, mla_index_select_args &args)
      : offsets_(offsets_argument(query_start_loc, "query_start_loc")),
        contexts_(request_numbers_argument(context_lens, "context_lens", offsets_, "query_start_loc")),
        visible_(visible_argument(visible_keys, rows_of(args))),
        table_(block_table, "block_table", blocks(block_size_of(args.index_cache), rows_of(args)), no_rows_) {
    args.num_requests = static_cast<std::int32_t>(offsets_.size() - 1);
    args.query_start_loc = offsets_.data();
    args.context_lens = pointer_or_null(contexts_);
    table_.fill_blocks(args);
    if (!visible_keys.is_none()) args.visible_keys = visible_.data();
  }

 private:
  static std::vector<std::int32_t> visible_argument(nb::handle value, std::int64_t rows) {
    if (value.is_none()) return {};
    auto visible = int32_array_argument(value, "visible_keys", static_cast<std::size_t>(rows) + 1);
    if (static_cast<std::int64_t>(visible.size()) != rows) {
      raise(PyExc_ValueError, "visible_keys: has " + std::to_string(visible.size()) +
                                  " entries, must have " + std::to_string(rows) + ", one for each row of q");
    }
    // Given, though it may be empty.
    visible.reserve(1);
    return visible;
  }

  /// That the library may read: those of what is seen at most.
  std::vector<std::int64_t> blocks(std::int64_t block_size, std::int64_t rows) const {
    std::vector<std::int64_t> counts;
    for (std::size_t i = 0; i + 1 < offsets_.size(); ++i) {
      const std::int64_t tokens = std::int64_t{offsets_[i + 1]} - offsets_[i];
      const std::int64_t context = contexts_.empty() ? 0 : contexts_[i];
      std::int64_t keys = tokens > 0 ? context + tokens : 0;
      // What is no range of rows the library refuses.
      if (!visible_.empty() && tokens > 0 && offsets_[i] >= 0 && offsets_[i + 1] <= rows) {
        keys = *std::max_element(visible_.begin() + offsets_[i], visible_.begin() + offsets_[i + 1]);
      }
      counts.push_back(blocks_reached(0, keys, block_size));
    }
    return counts;
  }

  std::vector<std::int32_t> offsets_, contexts_, visible_;
  const std::vector<std::int32_t> no_rows_{};
  TableArgument table_;
};

void index_select(nb::handle q, nb::handle weights, nb::handle index_cache, nb::handle block_table,
                  nb::handle query_start_loc, nb::handle context_lens, nb::handle visible_keys,
                  nb::handle topk_indices, nb::handle scores, std::int32_t format,
                  nb::handle quantize_q, std::int32_t scale_format, nb::handle hadamard,
                  nb::handle first_row, nb::handle num_rows) {
  mla_index_select_args args = MLA_INDEX_SELECT_ARGS_INIT;
  const TensorArgument queries(q, "q", args.q, role::cache);
  const TensorArgument of_heads(weights, "weights", args.weights, role::float32_input);
  TensorArgument cache(index_cache, "index_cache", args.index_cache, role::cache);
  cache.drop_heads();
  const IndicesArgument indices(topk_indices, args);
  const TensorArgument of_keys(scores, "scores", args.scores, role::float32_output);
  const IndexBatch batch(query_start_loc, context_lens, visible_keys, block_table, args);
  args.format = format;
  args.quantize_q = flag_argument(quantize_q, "quantize_q") ? 1 : 0;
  args.scale_format = scale_format;
  args.hadamard = flag_argument(hadamard, "hadamard") ? 1 : 0;
  args.first_row = int64_argument(first_row, "first_row");
  args.num_rows = int64_argument(num_rows, "num_rows");
  call_library([&] { return mla_index_select(&args); });
}

}  // namespace

void bind_indexer(nb::module_ &module) {
  define(module, "index_store", &index_store);
  define(module, "index_select", &index_select);
}

}  // namespace mla_python
