#include "backend.h"

#include <nanobind/stl/string.h>

#include <string>
#include <vector>

#include "arguments.h"
#include "tensor_argument.h"

namespace mla_python {

namespace {

/// A context chunk as Python hands it in: (index, query_start_loc, cu_seq_lens).
class ChunkArgument {
 public:
  ChunkArgument(nb::handle index, nb::handle query_start_loc, nb::handle cu_seq_lens)
      : query_start_loc_(int32_array_argument(query_start_loc, "chunk.query_start_loc")),
        cu_seq_lens_(int32_array_argument(cu_seq_lens, "chunk.cu_seq_lens")) {
    if (query_start_loc_.size() != cu_seq_lens_.size()) {
      raise(PyExc_ValueError, "chunk.cu_seq_lens: has " + std::to_string(cu_seq_lens_.size()) +
                                  " entries, must have the " +
                                  std::to_string(query_start_loc_.size()) +
                                  " of chunk.query_start_loc");
    }
    chunk_.index = int32_argument(index, "chunk.index");
    chunk_.num_requests = static_cast<std::int32_t>(query_start_loc_.size()) - 1;
  }

  /// Valid as long as this object stays where it is.
  mla_context_chunk get() const {
    mla_context_chunk chunk = chunk_;
    chunk.query_start_loc = pointer_or_null(query_start_loc_);
    chunk.cu_seq_lens = pointer_or_null(cu_seq_lens_);
    return chunk;
  }

 private:
  std::vector<std::int32_t> query_start_loc_;
  std::vector<std::int32_t> cu_seq_lens_;
  mla_context_chunk chunk_ = MLA_CONTEXT_CHUNK_INIT;
};

/// A backend object of the library's; the Python object owns it.
class Backend {
 public:
  Backend(const std::string &name, nb::handle num_heads, nb::handle scale, nb::handle kv_lora_rank,
          nb::handle qk_nope_head_dim, nb::handle qk_rope_head_dim, nb::handle v_head_dim,
          bool ignore_override) {
    mla_backend_config config = MLA_BACKEND_CONFIG_INIT;
    config.num_heads = int32_argument(num_heads, "num_heads");
    config.scale = float_argument(scale, "scale");
    config.kv_lora_rank = int32_argument(kv_lora_rank, "kv_lora_rank");
    config.qk_nope_head_dim = int32_argument(qk_nope_head_dim, "qk_nope_head_dim");
    config.qk_rope_head_dim = int32_argument(qk_rope_head_dim, "qk_rope_head_dim");
    config.v_head_dim = int32_argument(v_head_dim, "v_head_dim");
    config.ignore_override = ignore_override ? 1 : 0;
    call_library([&] { return mla_backend_create(name.c_str(), &config, &backend_); });
  }
  Backend(const Backend &) = delete;
  Backend &operator=(const Backend &) = delete;
  ~Backend() {
    nb::gil_scoped_release without_gil;
    mla_backend_destroy(backend_);
  }

  void prepare_metadata(nb::handle query_start_loc, nb::list chunks) {
    const auto offsets = int32_array_argument(query_start_loc, "query_start_loc");
    std::vector<ChunkArgument> arguments;
    arguments.reserve(chunks.size());
    for (nb::handle item : chunks) arguments.emplace_back(item[0], item[1], item[2]);
    std::vector<mla_context_chunk> views;
    views.reserve(arguments.size());
    for (const ChunkArgument &argument : arguments) views.push_back(argument.get());

    mla_prefill_metadata metadata = MLA_PREFILL_METADATA_INIT;
    metadata.num_requests = static_cast<std::int32_t>(offsets.size()) - 1;
    metadata.query_start_loc = pointer_or_null(offsets);
    metadata.chunks = views.empty() ? nullptr : views.data();
    metadata.num_chunks = static_cast<std::int32_t>(views.size());
    call_library([&] { return mla_prepare_metadata(backend_, &metadata); });
  }

  void run_prefill_new_tokens(nb::handle q, nb::handle k, nb::handle v, nb::handle out,
                              nb::handle lse, nb::handle output_scale) const {
    const TensorArgument q_view(q, "q"), k_view(k, "k"), v_view(v, "v");
    const TensorArgument out_view(out, "out", Access::write), lse_view(lse, "lse", Access::write);
    const FloatArgument scale(output_scale, "output_scale");
    mla_new_tokens_args args = MLA_NEW_TOKENS_ARGS_INIT;
    args.q = q_view.pointer();
    args.k = k_view.pointer();
    args.v = v_view.pointer();
    args.out = out_view.pointer();
    args.lse = lse_view.pointer();
    args.output_scale = scale.pointer();
    call_library([&] { return mla_run_prefill_new_tokens(backend_, &args); });
  }

  void run_prefill_context_chunk(nb::handle index, nb::handle query_start_loc,
                                 nb::handle cu_seq_lens, nb::handle q, nb::handle k, nb::handle v,
                                 nb::handle out, nb::handle lse) const {
    const ChunkArgument argument(index, query_start_loc, cu_seq_lens);
    const mla_context_chunk chunk = argument.get();
    const TensorArgument q_view(q, "q"), k_view(k, "k"), v_view(v, "v");
    const TensorArgument out_view(out, "out", Access::write), lse_view(lse, "lse", Access::write);
    mla_context_chunk_args args = MLA_CONTEXT_CHUNK_ARGS_INIT;
    args.chunk = &chunk;
    args.q = q_view.pointer();
    args.k = k_view.pointer();
    args.v = v_view.pointer();
    args.out = out_view.pointer();
    args.lse = lse_view.pointer();
    call_library([&] { return mla_run_prefill_context_chunk(backend_, &args); });
  }

  bool supports_out() const {
    std::int32_t supports = 0;
    call_library([&] { return mla_supports_out(backend_, &supports); });
    return supports != 0;
  }

  bool supports_quant_output(std::int32_t dtype) const {
    std::int32_t supports = 0;
    call_library([&] { return mla_supports_quant_output(backend_, dtype, &supports); });
    return supports != 0;
  }

  std::int64_t workspace_size() const {
    std::int64_t bytes = 0;
    call_library([&] { return mla_workspace_size(backend_, &bytes); });
    return bytes;
  }

  const char *name() const { return mla_backend_name(backend_); }

 private:
  mla_backend *backend_ = nullptr;
};

}  // namespace

void bind_backend(nb::module_ &module) {
  nb::class_<Backend>(module, "Backend", "A backend object of the library's.")
      .def(nb::init<const std::string &, nb::handle, nb::handle, nb::handle, nb::handle,
                    nb::handle, nb::handle, bool>(),
           nb::arg("name"), nb::kw_only(), nb::arg("num_heads"), nb::arg("scale"),
           nb::arg("kv_lora_rank"), nb::arg("qk_nope_head_dim"), nb::arg("qk_rope_head_dim"),
           nb::arg("v_head_dim"), nb::arg("ignore_override"))
      .def("prepare_metadata", &Backend::prepare_metadata, nb::arg("query_start_loc"),
           nb::arg("chunks"))
      .def("run_prefill_new_tokens", &Backend::run_prefill_new_tokens, nb::arg("q").none(),
           nb::arg("k").none(), nb::arg("v").none(), nb::arg("out").none(), nb::arg("lse").none(),
           nb::arg("output_scale").none())
      .def("run_prefill_context_chunk", &Backend::run_prefill_context_chunk, nb::arg("index"),
           nb::arg("query_start_loc").none(), nb::arg("cu_seq_lens").none(), nb::arg("q").none(),
           nb::arg("k").none(), nb::arg("v").none(), nb::arg("out").none(), nb::arg("lse").none())
      .def("supports_out", &Backend::supports_out)
      .def("supports_quant_output", &Backend::supports_quant_output, nb::arg("dtype"))
      .def("workspace_size", &Backend::workspace_size)
      .def_prop_ro("name", &Backend::name);
}

}  // namespace mla_python
