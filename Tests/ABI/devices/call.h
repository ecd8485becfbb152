/*
 * Calls whose tensors are on a device: addresses that nobody can read or write.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef CALL_H
#define CALL_H

#include "recorder.h"

enum { HEADS = 2, QK_DIM = 24, V_DIM = 16, TOKENS = 5, KEYS = 7 };

extern int failures;
/** Notes what the member RECORDER is handed. */
extern recorder mine;
/** Of the device. */
extern char *device_memory;

void report(const char *name, int good);

/** Whether a call has failed that way, with that in its message. */
int refused(mla_status status, mla_status expected, const char *text);

mla_backend_config config_on(int32_t device_type, int32_t device_id);

/** Of two requests. */
mla_prefill_metadata metadata_of(const int32_t *device_query_start_loc);

/** A call's tensors, one behind the other in memory of the device, and its other places
    there. */
typedef struct call {
  mla_tensor q, k, v, out, lse;
  void *workspace;
  const int32_t *queries, *keys;
  void *stream;
} call;

/** On CUDA device 1. */
mla_tensor view_at(size_t offset, int64_t rows, int64_t columns, int64_t dim);
call call_of(int64_t keys);

mla_status run_new_tokens(mla_backend *backend, const call *c);
/** Of one request. */
mla_status run_chunk(mla_backend *backend, const call *c);

/** What is refused of the object for CUDA device 1, and of others. */
void refusals(mla_backend *backend);

#endif
