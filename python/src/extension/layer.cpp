#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "arguments.h"
#include "bindings.h"
#include "device_integers.h"
#include "integers.h"
#include "tensor_argument.h"

namespace mla_python {

namespace {

/// The requests of a forward call; lengths that C cannot see are compared here.
class BatchArgument {
 public:
  BatchArgument(nb::handle query_start_loc, nb::handle context_lens, nb::handle new_tokens_cached,
                mla_layer_forward_args &args)
      : query_start_loc_(offsets_argument(query_start_loc, "query_start_loc")) {
    args.num_requests = static_cast<std::int32_t>(query_start_loc_.size() - 1);
    args.query_start_loc = query_start_loc_.data();
    context_lens_ = numbers(context_lens, "context_lens");
    args.context_lens = pointer_or_null(context_lens_);
    args.new_tokens_cached = flag_argument(new_tokens_cached, "new_tokens_cached") ? 1 : 0;
    new_tokens_cached_ = args.new_tokens_cached != 0;
  }

  /// One for each request; none for None.
  std::vector<std::int32_t> numbers(nb::handle value, const char *name) const {
    return request_numbers_argument(value, name, query_start_loc_, "query_start_loc");
  }

  std::int64_t num_tokens() const { return query_start_loc_.back(); }
  std::int64_t num_requests() const {
    return static_cast<std::int64_t>(query_start_loc_.size()) - 1;
  }

  /// How many of its blocks each request's tokens in the cache reach into, beginning where
  /// `starts` says, if they are there; 0 without a block size.
  std::vector<std::int64_t> blocks(std::int64_t block_size,
                                   const std::vector<std::int32_t> &starts) const {
    std::vector<std::int64_t> counts(query_start_loc_.size() - 1, 0);
    for (std::size_t request = 0; request < counts.size(); ++request) {
      counts[request] = blocks_reached(starts.empty() ? 0 : starts[request], cached_tokens(request),
                                       block_size);
    }
    return counts;
  }

 private:
  std::int64_t cached_tokens(std::size_t request) const {
    const std::int64_t context = context_lens_.empty() ? 0 : context_lens_[request];
    const std::int64_t begin = query_start_loc_[request];
    return context + (new_tokens_cached_ ? query_start_loc_[request + 1] - begin : 0);
  }

  std::vector<std::int32_t> query_start_loc_;
  std::vector<std::int32_t> context_lens_;
  bool new_tokens_cached_ = false;
};

/// The keys that each new token attends to.
class SelectionArgument {
 public:
  SelectionArgument(nb::handle value, const BatchArgument &batch, mla_layer_forward_args &args) {
    if (value.is_none()) return;
    static const std::vector<std::int32_t> in_order;
    const auto tokens = static_cast<std::size_t>(std::max<std::int64_t>(batch.num_tokens(), 0));
    rows_.emplace(value, "topk_indices", Counts::all(tokens), in_order, "token");
    rows_->fill_selection(args);
  }

 private:
  std::optional<TableArgument> rows_;
};

/// Where a forward call's contexts are. On a device only it can read the table.
class CacheArgument {
 public:
  CacheArgument(nb::handle kv_cache, nb::handle k_pe_cache, nb::handle block_table,
                nb::handle context_starts, nb::handle block_table_rows, const Place &place,
                const BatchArgument &batch, mla_layer_forward_args &args)
      : cache_(kv_cache, "kv_cache", args.kv_cache, role::cache, place),
        rope_(k_pe_cache, "k_pe_cache", args.k_pe_cache, role::cache, place),
        starts_(batch.numbers(context_starts, "context_starts")),
        rows_(batch.numbers(block_table_rows, "block_table_rows")) {
    cache_.drop_heads();
    rope_.drop_heads();
    args.context_starts = pointer_or_null(starts_);
    constexpr const char *name = "block_table";
    if (place.is_cpu()) {
      const auto counts = batch.blocks(block_size_of(args.kv_cache), starts_);
      table_.emplace(block_table, name, counts, rows_);
      table_->fill(args);
    } else {
      device_table_.emplace(block_table, name, place, rows_.empty() ? batch.num_requests() : 0);
      device_table_->fill(args, rows_);
    }
  }

 private:
  TensorArgument cache_, rope_;
  std::vector<std::int32_t> starts_, rows_;
  std::optional<TableArgument> table_;
  std::optional<DeviceTable> device_table_;
};

/// A layer of the library's; the Python object owns it.
class Layer {
 public:
  explicit Layer(nb::kwargs keywords) : Layer() {
    const NamedArguments given(std::move(keywords));
    mla_layer_config config = MLA_LAYER_CONFIG_INIT;
    config.device_type = given.int32("device_type");
    config.device_id = given.int32("device_id");
    place_ = {config.device_type, config.device_id, nullptr};
    const TensorArgument weights(given["kv_b_proj"], "kv_b_proj", config.kv_b_proj, role::weights,
                                 place_);
    const TensorArgument scales(given["weight_scales"], "weight_scales", config.weight_scales,
                                role::weight_scales, place_);
    const Text backend = given.optional_text("backend");
    config.backend = pointer_or_null(backend);
    read_model(given, config);
    config.dtype = given.int32("dtype");
    config.cache_dtype = given.int32("cache_dtype");
    config.cache_scale = given.float32("cache_scale");
    config.workspace_bound = given.int64("workspace_bound");
    config.algorithm = given.int32("algorithm");
    config.cache_format = given.int32("cache_format");
    config.weight_block_rows = given.int32("weight_block_rows");
    config.weight_block_columns = given.int32("weight_block_columns");
    call_library([&] { return mla_layer_create(&config, &layer_); });
  }
  Layer(const Layer &) = delete;
  Layer &operator=(const Layer &) = delete;
  ~Layer() {
    const WithoutGil without_gil;
    mla_layer_destroy(layer_);
  }

  void forward(nb::handle q, nb::handle kv_c_normed, nb::handle k_pe, nb::handle kv_cache,
               nb::handle block_table, nb::handle query_start_loc, nb::handle context_lens,
               nb::handle out, nb::handle lse, nb::handle output_scale, nb::handle k_pe_cache,
               nb::handle context_starts, nb::handle block_table_rows, nb::handle context_only,
               nb::handle topk_indices, nb::handle new_tokens_cached, bool is_new_out,
               nb::handle stream) const {
    mla_layer_forward_args args = MLA_LAYER_FORWARD_ARGS_INIT;
    const Place place = place_argument(place_.device_type, place_.device_id, stream);
    args.stream = place.stream;
    args.flags = flags(context_only);
    const BatchArgument batch(query_start_loc, context_lens, new_tokens_cached, args);
    const SelectionArgument selection(topk_indices, batch, args);
    const TensorArgument queries(q, "q", args.q, role::input, place);
    const TensorArgument latents(kv_c_normed, "kv_c_normed", args.kv_c_normed, role::input, place);
    const TensorArgument rope(k_pe, "k_pe", args.k_pe, role::input, place);
    const CacheArgument cache(kv_cache, k_pe_cache, block_table, context_starts, block_table_rows,
                              place, batch, args);
    TensorArgument output(out, "out", args.out, role::output, place);
    if (is_new_out) output.clear_rows_from(batch.num_tokens());
    const TensorArgument sums(lse, "lse", args.lse, role::float32_output, place);
    const FloatArgument scale(output_scale, "output_scale", args.output_scale);
    call_library([&] { return mla_layer_forward(layer_, &args); });
  }

  std::int64_t workspace_size(nb::handle query_start_loc, nb::handle context_lens,
                              nb::handle context_only, nb::handle topk_indices,
                              nb::handle new_tokens_cached) const {
    mla_layer_forward_args args = MLA_LAYER_FORWARD_ARGS_INIT;
    args.flags = flags(context_only);
    const BatchArgument batch(query_start_loc, context_lens, new_tokens_cached, args);
    const SelectionArgument selection(topk_indices, batch, args);
    std::int64_t bytes = 0;
    call_library([&] { return mla_layer_workspace_size(layer_, &args, &bytes); });
    return bytes;
  }

 private:
  /// Complete: what an interruption follows is destroyed by the destructor.
  Layer() = default;

  static std::uint64_t flags(nb::handle context_only) {
    return flag_argument(context_only, "context_only") ? MLA_LAYER_CONTEXT_ONLY : 0;
  }

  mla_layer *layer_ = nullptr;
  Place place_;
};

}  // namespace

void bind_layer(nb::module_ &module) {
  nb::class_<Layer> layer(module, "Layer", "A layer of the library's.");
  layer.def(nb::init<nb::kwargs>());
  define(layer, "forward", &Layer::forward);
  define(layer, "workspace_size", &Layer::workspace_size);
}

}  // namespace mla_python
