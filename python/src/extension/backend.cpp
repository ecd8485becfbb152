#include <atomic>
#include <string>
#include <utility>
#include <vector>

#include "arguments.h"
#include "bindings.h"
#include "integers.h"
#include "tensor_argument.h"

namespace mla_python {

namespace {

/// A context chunk as Python hands it in: (index, query_start_loc, cu_seq_lens).
class ChunkArgument {
 public:
  ChunkArgument(const std::string &name, nb::handle index, nb::handle query_start_loc,
                nb::handle cu_seq_lens)
      : query_start_loc_(offsets_argument(query_start_loc, (name + ".query_start_loc").c_str())),
        cu_seq_lens_(int32_array_argument(cu_seq_lens, (name + ".cu_seq_lens").c_str(),
                                          max_requests + 1)) {
    if (query_start_loc_.size() != cu_seq_lens_.size()) {
      raise(PyExc_ValueError, name + ".cu_seq_lens: has " + std::to_string(cu_seq_lens_.size()) +
                                  " entries, must have the " +
                                  std::to_string(query_start_loc_.size()) + " of " + name +
                                  ".query_start_loc");
    }
    chunk_.index = int32_argument(index, (name + ".index").c_str());
    chunk_.num_requests = static_cast<std::int32_t>(query_start_loc_.size()) - 1;
  }

  std::int64_t num_query_rows() const { return query_start_loc_.back(); }

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

/// The tensors of a run.
class RunTensors {
 public:
  template <class Args>
  RunTensors(nb::handle q, nb::handle k, nb::handle v, nb::handle out, nb::handle lse, Args &args,
             const Place &place)
      : q_(q, "q", args.q, role::input, place),
        k_(k, "k", args.k, role::input, place),
        v_(v, "v", args.v, role::input, place),
        out_(out, "out", args.out, role::output, place),
        lse_(lse, "lse", args.lse, role::float32_output, place) {
    args.stream = place.stream;
  }

  /// Of outputs that are made for this run, dense: lse always is.
  void clear_beyond(std::int64_t num_tokens, bool is_new_out) {
    if (is_new_out) out_.clear_rows_from(num_tokens);
    lse_.clear_tokens_from(num_tokens);
  }

 private:
  TensorArgument q_, k_, v_, out_, lse_;
};

/// A backend object of the library's; the Python object owns it.
class Backend {
 public:
  Backend(nb::handle name, nb::kwargs keywords) : Backend() {
    const NamedArguments given(std::move(keywords));
    const std::string text = text_argument(name, "name");
    mla_backend_config config = MLA_BACKEND_CONFIG_INIT;
    read_model(given, config);
    config.ignore_override = given.flag("ignore_override");
    if (given.has("device_type")) {
      config.device_type = given.int32("device_type");
      config.device_id = given.int32("device_id");
      place_ = {config.device_type, config.device_id, nullptr};
    }
    call_library([&] { return mla_backend_create(text.c_str(), &config, &backend_); });
  }
  Backend(const Backend &) = delete;
  Backend &operator=(const Backend &) = delete;
  ~Backend() {
    const WithoutGil without_gil;
    mla_backend_destroy(backend_);
  }

  void prepare_metadata(nb::handle query_start_loc, nb::list chunks) {
    const auto offsets = offsets_argument(query_start_loc, "query_start_loc");
    std::vector<ChunkArgument> arguments;
    arguments.reserve(chunks.size());
    for (nb::handle item : chunks) {
      const std::string name = "chunks[" + std::to_string(arguments.size()) + "]";
      arguments.emplace_back(name, item[0], item[1], item[2]);
    }
    std::vector<mla_context_chunk> views;
    views.reserve(arguments.size());
    for (const ChunkArgument &argument : arguments) views.push_back(argument.get());

    mla_prefill_metadata metadata = MLA_PREFILL_METADATA_INIT;
    metadata.num_requests = static_cast<std::int32_t>(offsets.size()) - 1;
    metadata.query_start_loc = pointer_or_null(offsets);
    metadata.chunks = views.empty() ? nullptr : views.data();
    metadata.num_chunks = static_cast<std::int32_t>(views.size());
    call_library([&] { return mla_prepare_metadata(backend_, &metadata); });
    num_tokens_ = offsets.back();
  }

  void run_prefill_new_tokens(nb::handle q, nb::handle k, nb::handle v, nb::handle out,
                              nb::handle lse, nb::handle output_scale, bool is_new_out,
                              nb::handle stream) const {
    mla_new_tokens_args args = MLA_NEW_TOKENS_ARGS_INIT;
    RunTensors tensors(q, k, v, out, lse, args, place_with(stream));
    tensors.clear_beyond(num_tokens_, is_new_out);
    const FloatArgument scale(output_scale, "output_scale", args.output_scale);
    call_library([&] { return mla_run_prefill_new_tokens(backend_, &args); });
  }

  void run_prefill_context_chunk(nb::handle index, nb::handle query_start_loc,
                                 nb::handle cu_seq_lens, nb::handle q, nb::handle k, nb::handle v,
                                 nb::handle out, nb::handle lse, bool is_new_out,
                                 nb::handle stream) const {
    const ChunkArgument argument("chunk", index, query_start_loc, cu_seq_lens);
    const mla_context_chunk chunk = argument.get();
    mla_context_chunk_args args = MLA_CONTEXT_CHUNK_ARGS_INIT;
    args.chunk = &chunk;
    RunTensors tensors(q, k, v, out, lse, args, place_with(stream));
    tensors.clear_beyond(argument.num_query_rows(), is_new_out);
    call_library([&] { return mla_run_prefill_context_chunk(backend_, &args); });
  }

  void warm_up() const {
    call_library([&] { return mla_warm_up(backend_); });
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
  /// Complete: what an interruption follows is destroyed by the destructor.
  Backend() = default;

  Place place_with(nb::handle stream) const {
    return place_argument(place_.device_type, place_.device_id, stream);
  }

  mla_backend *backend_ = nullptr;
  Place place_;
  /// Of the batch that was prepared last.
  std::atomic<std::int64_t> num_tokens_{0};
};

}  // namespace

void bind_backend(nb::module_ &module) {
  nb::class_<Backend> backend(module, "Backend", "A backend object of the library's.");
  backend.def(nb::init<nb::handle, nb::kwargs>());
  define(backend, "prepare_metadata", &Backend::prepare_metadata);
  const auto any = nb::arg().none();
  const auto stream = nb::arg("stream") = nb::none();
  backend.def("run_prefill_new_tokens", &Backend::run_prefill_new_tokens, any, any, any, any, any,
              any, any, stream);
  backend.def("run_prefill_context_chunk", &Backend::run_prefill_context_chunk, any, any, any, any,
              any, any, any, any, any, stream);
  define(backend, "warm_up", &Backend::warm_up);
  define(backend, "supports_out", &Backend::supports_out);
  define(backend, "supports_quant_output", &Backend::supports_quant_output);
  define(backend, "workspace_size", &Backend::workspace_size);
  backend.def_prop_ro("name", &Backend::name);
}

}  // namespace mla_python
