/*
 * ABI version 1, frozen: every prototype that a program compiled today relies on; another
 * of the same name does not compile. A later version may append; no line below may ever
 * change or go.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "mla_prefill.h"

uint32_t mla_abi_version(void);
const char *mla_version(void);
const char *mla_status_name(mla_status status);
const char *mla_last_error_message(void);
void mla_set_last_error_message(const char *message);
mla_status mla_get_cpu_info(mla_cpu_info *info);
const char *mla_cpu_summary(void);
const char *mla_isa_name(int32_t isa);
mla_status mla_set_num_threads(int32_t num_threads);
int32_t mla_get_num_threads(void);
mla_status mla_set_parallel_for(void (*parallel_for)(void *, int64_t, void (*)(void *, int64_t),
                                                     void *),
                                void *host_context);
mla_status mla_set_log_callback(void (*callback)(void *, int32_t, const char *),
                                void *log_context);
mla_status mla_set_verbose(int32_t level, void (*callback)(void *, int32_t, const char *),
                           void *log_context);
int32_t mla_stats_size(void);
mla_status mla_get_stats(int32_t index, mla_call_stats *stats);
void mla_reset_stats(void);
mla_status mla_trim(int64_t *bytes);
mla_status mla_get_log_callback(void (**callback)(void *, int32_t, const char *),
                                void **log_context);
mla_status mla_register_backend(const char *name, const mla_backend_registration *registration);
mla_status mla_override_backend(const char *name, const mla_backend_registration *registration);
mla_status mla_clear_override(const char *name);
mla_status mla_remove_backend(const char *name);
mla_status mla_backend_path(const char *name, const char **class_path);
mla_status mla_backend_is_overridden(const char *name, int32_t *is_overridden);
mla_status mla_select_backend(const mla_selector_config *config, const char **name);
mla_status mla_validate_configuration(const char *name, const mla_selector_config *config,
                                      void (*sink)(void *, const char *), void *sink_context);
mla_status mla_backend_list_create(const mla_selector_config *config, mla_backend_list **list);
int32_t mla_backend_list_size(const mla_backend_list *list);
mla_status mla_backend_list_get(const mla_backend_list *list, int32_t index, mla_backend_info
        *info);
mla_status mla_backend_list_reason(const mla_backend_list *list, int32_t index, int32_t reason,
        const char **text);
void mla_backend_list_destroy(mla_backend_list *list);
mla_status mla_plan_context_chunks(const mla_context_plan_args *args, mla_context_plan **plan);
int32_t mla_context_plan_num_chunks(const mla_context_plan *plan);
mla_status mla_context_plan_get(const mla_context_plan *plan, int32_t index,
        mla_context_plan_chunk *chunk);
void mla_context_plan_destroy(mla_context_plan *plan);
mla_status mla_backend_create(const char *name, const mla_backend_config *config, mla_backend
        **backend);
mla_status mla_backend_clone(const mla_backend *backend, mla_backend **clone);
void mla_backend_destroy(mla_backend *backend);
const char *mla_backend_name(const mla_backend *backend);
mla_status mla_warm_up(const mla_backend *backend);
mla_status mla_prepare_metadata(mla_backend *backend, const mla_prefill_metadata *metadata);
mla_status mla_run_prefill_new_tokens(const mla_backend *backend, const mla_new_tokens_args
        *args);
mla_status mla_run_prefill_context_chunk(const mla_backend *backend, const mla_context_chunk_args
        *args);
mla_status mla_supports_out(const mla_backend *backend, int32_t *supports);
mla_status mla_supports_quant_output(const mla_backend *backend, int32_t dtype, int32_t
        *supports);
mla_status mla_workspace_size(const mla_backend *backend, int64_t *bytes);
mla_status mla_merge_attn_states(const mla_merge_args *args);
mla_status mla_layer_create(const mla_layer_config *config, mla_layer **layer);
void mla_layer_destroy(mla_layer *layer);
mla_status mla_layer_workspace_size(const mla_layer *layer, const mla_layer_forward_args *args,
                                    int64_t *bytes);
mla_status mla_layer_forward(const mla_layer *layer, const mla_layer_forward_args *args);
mla_status mla_concat_and_cache_mla(const mla_concat_and_cache_args *args);
mla_status mla_gather_and_maybe_dequant_cache(const mla_gather_cache_args *args);
mla_status mla_attention(const mla_attention_args *args);
mla_status mla_attention_workspace_size(const mla_attention_args *args, int64_t *bytes);
mla_status mla_index_store(const mla_index_store_args *args);
mla_status mla_index_select(const mla_index_select_args *args);
mla_status mla_index_workspace_size(const mla_index_select_args *args, int64_t *bytes);
