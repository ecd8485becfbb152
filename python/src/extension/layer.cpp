#include "layer.h"

#include <algorithm>
#include <string>
#include <vector>

#include "arguments.h"
#include "integers.h"
#include "tensor_argument.h"

namespace mla_python {

namespace {

/// The requests of a forward call; lengths that C cannot see are compared here.
class BatchArgument {
 public:
  BatchArgument(nb::handle query_start_loc, nb::handle context_lens)
      : query_start_loc_(offsets_argument(query_start_loc, "query_start_loc")),
        has_context_lens_(!context_lens.is_none()) {
    if (has_context_lens_) context_lens_ = int32_array_argument(context_lens, "context_lens");
    if (has_context_lens_ && context_lens_.size() + 1 != query_start_loc_.size()) {
      raise(PyExc_ValueError, "context_lens: has " + std::to_string(context_lens_.size()) +
                                  " entries, must have one less than the " +
                                  std::to_string(query_start_loc_.size()) + " of query_start_loc");
    }
  }

  std::int64_t num_tokens() const { return query_start_loc_.back(); }

  /// How many blocks of the cache each request's context takes; 0 without a block size.
  std::vector<std::int64_t> blocks(std::int64_t block_size) const {
    std::vector<std::int64_t> counts(query_start_loc_.size() - 1, 0);
    if (block_size < 1) return counts;
    for (std::size_t request = 0; request < context_lens_.size(); ++request) {
      const std::int64_t tokens = std::max(context_lens_[request], 0);
      counts[request] = tokens / block_size + (tokens % block_size != 0);
    }
    return counts;
  }

  void fill(mla_layer_forward_args &args) const {
    args.num_requests = static_cast<std::int32_t>(query_start_loc_.size() - 1);
    args.query_start_loc = query_start_loc_.data();
    args.context_lens = has_context_lens_ ? pointer_or_null(context_lens_) : nullptr;
  }

 private:
  std::vector<std::int32_t> query_start_loc_;
  std::vector<std::int32_t> context_lens_;
  bool has_context_lens_;
};

/// A layer of the library's; the Python object owns it.
class Layer {
 public:
  Layer(nb::handle num_heads, nb::handle scale, nb::handle kv_lora_rank,
        nb::handle qk_nope_head_dim, nb::handle qk_rope_head_dim, nb::handle v_head_dim,
        nb::handle kv_b_proj, nb::handle backend, std::int32_t dtype,
        std::int32_t cache_dtype, nb::handle cache_scale, nb::handle workspace_bound,
        std::int32_t algorithm, std::int32_t cache_format, nb::handle weight_scales)
      : Layer() {
    const TensorArgument weights(kv_b_proj, "kv_b_proj", role::weights);
    const TensorArgument scales(weight_scales, "weight_scales", role::weight_scales);
    const Text backend_name = optional_text_argument(backend, "backend");
    mla_layer_config config = MLA_LAYER_CONFIG_INIT;
    config.num_heads = int32_argument(num_heads, "num_heads");
    config.scale = float_argument(scale, "scale");
    config.kv_lora_rank = int32_argument(kv_lora_rank, "kv_lora_rank");
    config.qk_nope_head_dim = int32_argument(qk_nope_head_dim, "qk_nope_head_dim");
    config.qk_rope_head_dim = int32_argument(qk_rope_head_dim, "qk_rope_head_dim");
    config.v_head_dim = int32_argument(v_head_dim, "v_head_dim");
    config.dtype = dtype;
    config.backend = pointer_or_null(backend_name);
    config.kv_b_proj = weights.pointer();
    config.cache_dtype = cache_dtype;
    config.cache_scale = float32_argument(cache_scale, "cache_scale");
    config.workspace_bound = int64_argument(workspace_bound, "workspace_bound");
    config.algorithm = algorithm;
    config.cache_format = cache_format;
    config.weight_scales = scales.pointer();
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
               nb::handle out, nb::handle lse, nb::handle output_scale, bool is_new_out) const {
    const BatchArgument batch(query_start_loc, context_lens);
    const TensorArgument q_view(q, "q"), latents_view(kv_c_normed, "kv_c_normed");
    const TensorArgument rope_view(k_pe, "k_pe");
    TensorArgument cache_view(kv_cache, "kv_cache", role::cache);
    cache_view.drop_heads();
    const mla_tensor *cache = cache_view.pointer();
    const std::int64_t block_size = cache && cache->ndim == 3 ? cache->shape[1] : 0;
    const TableArgument table(block_table, "block_table", batch.blocks(block_size));
    TensorArgument out_view(out, "out", role::output);
    if (is_new_out) out_view.clear_rows_from(batch.num_tokens());
    const TensorArgument lse_view(lse, "lse", role::float32_output);
    const FloatArgument scale(output_scale, "output_scale");
    mla_layer_forward_args args = MLA_LAYER_FORWARD_ARGS_INIT;
    batch.fill(args);
    args.q = q_view.pointer();
    args.kv_c_normed = latents_view.pointer();
    args.k_pe = rope_view.pointer();
    args.kv_cache = cache;
    args.block_table = table.data();
    args.block_table_stride = table.row_stride();
    args.max_blocks = table.columns();
    args.out = out_view.pointer();
    args.lse = lse_view.pointer();
    args.output_scale = scale.pointer();
    call_library([&] { return mla_layer_forward(layer_, &args); });
  }

  std::int64_t workspace_size(nb::handle query_start_loc, nb::handle context_lens) const {
    const BatchArgument batch(query_start_loc, context_lens);
    mla_layer_forward_args args = MLA_LAYER_FORWARD_ARGS_INIT;
    batch.fill(args);
    std::int64_t bytes = 0;
    call_library([&] { return mla_layer_workspace_size(layer_, &args, &bytes); });
    return bytes;
  }

 private:
  /// Complete: what an interruption follows is destroyed by the destructor.
  Layer() = default;

  mla_layer *layer_ = nullptr;
};

void concat_and_cache_mla(nb::handle kv_c_normed, nb::handle k_pe, nb::handle kv_cache,
                          nb::handle slot_mapping, nb::handle cache_scale,
                          std::int32_t cache_format) {
  const TensorArgument latents_view(kv_c_normed, "kv_c_normed"), rope_view(k_pe, "k_pe");
  TensorArgument cache_view(kv_cache, "kv_cache", role::filled_cache);
  cache_view.drop_heads();
  const mla_tensor *latents = latents_view.pointer();
  // One more than there may be: the library says why.
  const std::int64_t most = latents && latents->ndim == 2 ? latents->shape[0] + 1 : INT32_MAX;
  const auto slots =
      int64_array_argument(slot_mapping, "slot_mapping", static_cast<std::size_t>(most));
  mla_concat_and_cache_args args = MLA_CONCAT_AND_CACHE_ARGS_INIT;
  args.cache_scale = float32_argument(cache_scale, "cache_scale");
  args.kv_c_normed = latents_view.pointer();
  args.k_pe = rope_view.pointer();
  args.slot_mapping = pointer_or_null(slots);
  args.num_slots = static_cast<std::int64_t>(slots.size());
  args.kv_cache = cache_view.pointer();
  args.cache_format = cache_format;
  call_library([&] { return mla_concat_and_cache_mla(&args); });
}

}  // namespace

void bind_layer(nb::module_ &module) {
  nb::class_<Layer>(module, "Layer", "A layer of the library's.")
      .def(nb::init<nb::handle, nb::handle, nb::handle, nb::handle, nb::handle, nb::handle,
                    nb::handle, nb::handle, std::int32_t, std::int32_t, nb::handle, nb::handle,
                    std::int32_t, std::int32_t, nb::handle>(),
           nb::kw_only(), anything("num_heads"), anything("scale"), anything("kv_lora_rank"),
           anything("qk_nope_head_dim"), anything("qk_rope_head_dim"), anything("v_head_dim"),
           anything("kv_b_proj"), anything("backend"), nb::arg("dtype"), nb::arg("cache_dtype"),
           anything("cache_scale"), anything("workspace_bound"), nb::arg("algorithm"),
           nb::arg("cache_format"), anything("weight_scales"))
      .def("forward", &Layer::forward, nb::kw_only(), anything("q"), anything("kv_c_normed"),
           anything("k_pe"), anything("kv_cache"), anything("block_table"),
           anything("query_start_loc"), anything("context_lens"), anything("out"),
           anything("lse"), anything("output_scale"), nb::arg("is_new_out") = false)
      .def("workspace_size", &Layer::workspace_size, nb::kw_only(), anything("query_start_loc"),
           anything("context_lens"));
  module.def("concat_and_cache_mla", &concat_and_cache_mla, nb::kw_only(),
             anything("kv_c_normed"), anything("k_pe"), anything("kv_cache"),
             anything("slot_mapping"), anything("cache_scale"), nb::arg("cache_format"));
}

}  // namespace mla_python
