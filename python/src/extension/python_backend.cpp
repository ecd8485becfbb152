#include "python_backend.h"

#include <cstdint>

#include "host_tensor.h"

namespace mla_python {

namespace {

nb::handle object(void *pointer) { return nb::handle(static_cast<PyObject *>(pointer)); }

/// Views that live as long as the callback that gets them.
nb::object input(const mla_tensor *tensor, void *stream) {
  return nb::cast(HostTensor(*tensor, true, stream));
}

nb::object output(const mla_tensor *tensor, void *stream) {
  if (!tensor) return nb::none();
  return nb::cast(HostTensor(*tensor, false, stream));
}

nb::tuple described(const mla_context_chunk &chunk) {
  const std::int64_t count = std::int64_t{chunk.num_requests} + 1;
  return nb::make_tuple(chunk.index, list_of(chunk.query_start_loc, count),
                        list_of(chunk.cu_seq_lens, count));
}

/// Keyword arguments of a configuration's.
template <class Config>
nb::dict head_dimensions(const Config &config) {
  nb::dict dimensions;
  dimensions["qk_nope_head_dim"] = config.qk_nope_head_dim;
  dimensions["qk_rope_head_dim"] = config.qk_rope_head_dim;
  dimensions["v_head_dim"] = config.v_head_dim;
  return dimensions;
}

void destroy_context(void *context) {
  // Memory of an interpreter that is gone is nobody's to free.
  if (interpreter_has_ended()) return;
  const WithGil with_gil;
  drop(static_cast<PyObject *>(context));
}

mla_status validate(void *context, const mla_selector_config *config, mla_reason_sink sink,
                    void *sink_context) {
  const mla_status status = in_python([&] {
    const nb::object reasons = call_method(
        object(context), "validate", config->dtype, head_dimensions(*config), config->platform,
        config->capability_major, config->capability_minor, config->batch_invariant != 0);
    for (nb::handle reason : nb::iter(reasons)) sink(sink_context, c_text_of(reason).c_str());
  });
  // Lists go on without the exception; the text tells their readers.
  if (status != MLA_OK) sink(sink_context, mla_last_error_message());
  return MLA_OK;
}

mla_status create(void *context, const mla_backend_config *config, void **instance) {
  return in_python([&] {
    nb::dict arguments = head_dimensions(*config);
    arguments["num_heads"] = config->num_heads;
    arguments["scale"] = config->scale;
    arguments["kv_lora_rank"] = config->kv_lora_rank;
    if (config->device_type != MLA_DEVICE_CPU) {
      arguments["device"] = nb::make_tuple(config->device_type, config->device_id);
    }
    nb::object created = call_method(object(context), "create", arguments);
    *instance = created.release().ptr();
  });
}

void destroy(void *, void *instance) { destroy_context(instance); }

mla_status prepare_metadata(void *context, void *instance, const mla_prefill_metadata *metadata) {
  return in_python([&] {
    nb::list chunks;
    for (std::int32_t i = 0; i < metadata->num_chunks; ++i) {
      chunks.append(described(metadata->chunks[i]));
    }
    call_method(object(context), "prepare_metadata", object(instance),
                list_of(metadata->query_start_loc, std::int64_t{metadata->num_requests} + 1),
                chunks);
  });
}

mla_status run_prefill_new_tokens(void *context, void *instance, const mla_new_tokens_args *args) {
  return in_python([&] {
    const nb::object scale =
        args->output_scale ? nb::object(nb::float_(*args->output_scale)) : nb::none();
    call_method(object(context), "run_prefill_new_tokens", object(instance),
                input(args->q, args->stream), input(args->k, args->stream),
                input(args->v, args->stream), output(args->out, args->stream),
                output(args->lse, args->stream), scale);
  });
}

mla_status run_prefill_context_chunk(void *context, void *instance,
                                     const mla_context_chunk_args *args) {
  return in_python([&] {
    call_method(object(context), "run_prefill_context_chunk", object(instance),
                described(*args->chunk), input(args->q, args->stream),
                input(args->k, args->stream), input(args->v, args->stream),
                output(args->out, args->stream), output(args->lse, args->stream));
  });
}

std::int32_t supports_out(void *context, void *instance) {
  bool supports = false;
  in_python([&] {
    supports = nb::cast<bool>(call_method(object(context), "supports_out", object(instance)));
  });
  return supports ? 1 : 0;
}

std::int32_t supports_quant_output(void *context, void *instance, std::int32_t dtype) {
  bool supports = false;
  in_python([&] {
    supports = nb::cast<bool>(
        call_method(object(context), "supports_quant_output", object(instance), dtype));
  });
  return supports ? 1 : 0;
}

std::int32_t supports_device(void *context, std::int32_t device_type, std::int32_t) {
  bool supports = false;
  in_python([&] {
    supports = nb::cast<bool>(call_method(object(context), "supports_device", device_type));
  });
  return supports ? 1 : 0;
}

}  // namespace

mla_backend_vtable python_vtable(nb::handle adapter, const char *backend_name) {
  mla_backend_vtable vtable = MLA_BACKEND_VTABLE_INIT;
  vtable.context = adapter.inc_ref().ptr();
  vtable.destroy_context = destroy_context;
  vtable.backend_name = backend_name;
  vtable.validate = validate;
  vtable.create = create;
  vtable.destroy = destroy;
  vtable.prepare_metadata = prepare_metadata;
  vtable.run_prefill_new_tokens = run_prefill_new_tokens;
  vtable.run_prefill_context_chunk = run_prefill_context_chunk;
  vtable.supports_out = supports_out;
  vtable.supports_quant_output = supports_quant_output;
  vtable.supports_device = supports_device;
  return vtable;
}

void release_adapter(const mla_backend_vtable &vtable) {
  Py_DECREF(static_cast<PyObject *>(vtable.context));
}

}  // namespace mla_python
