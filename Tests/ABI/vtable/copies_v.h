/*
 * A backend written in C99: each row of its output is the row of V.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef COPIES_V_H
#define COPIES_V_H

#include "mla_prefill.h"

enum { copies_v_heads = 2 };

/** Longer than what a thread has room for when its first message was a short one. */
extern char copies_v_long_message[2000];

/** What the backend is asked, and what it shall answer. */
typedef struct copies_v {
  int created, destroyed, context_destroyed, prepared, new_tokens, chunks;
  int refuse_run, writes_fp8, mutters;
  mla_backend_config config;
  int32_t tokens;
  float output_scale;
} copies_v;

/** Of a backend that reports to `mine`, which must outlive it. */
mla_backend_vtable copies_v_table(copies_v *mine);

#endif
