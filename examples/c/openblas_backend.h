/*
 * A whole MLA prefill backend on OpenBLAS, for openblas_prefill.c and engines like it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OPENBLAS_BACKEND_H
#define OPENBLAS_BACKEND_H

#include "mla_prefill.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Registers the backend as `name`, from then on to be chosen and created like any other.
 * Inputs and outputs are bf16 or fp32, on the CPU. A run works on the thread that calls it,
 * in 3 MiB at heads of 192/128, however long the prompt; OpenBLAS is left one thread in the
 * whole process. Errors: those of mla_register_backend().
 */
mla_status openblas_backend_register(const char *name);

#ifdef __cplusplus
}
#endif

#endif
