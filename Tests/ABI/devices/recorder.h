/*
 * A backend written in C99 that runs on devices: it notes what it is handed, and touches
 * none of it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef RECORDER_H
#define RECORDER_H

#include "mla_prefill.h"

/** What the backend was asked last. */
typedef struct recorder {
  int asked, created, prepared, runs;
  int32_t device_type, device_id;
  mla_backend_config config;
  mla_prefill_metadata metadata;
  /** Of either run, what args point to copied. */
  mla_tensor q, k, v, out, lse;
  int has_lse;
  uint32_t args_size;
  float output_scale;
  void *workspace, *stream;
  int64_t workspace_size;
  const int32_t *device_query_start_loc, *device_cu_seq_lens;
} recorder;

/** Runs on CUDA devices 0 and 1, and on ROCm device 3, where it says that; `mine` must
    outlive it. */
mla_backend_vtable recorder_table(recorder *mine);

#endif
