/*
 * A reader for the safetensors files of this example: just enough to hand the
 * tensors of one file to mla_prefill.h without copying them.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SAFETENSORS_H
#define SAFETENSORS_H

#include <stddef.h>

#include "mla_prefill.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct st_file {
  /** The whole file, NUL-terminated. */
  unsigned char *bytes;
  size_t size;
  /** The JSON header inside it. */
  size_t header_size;
} st_file;

/** Reads a whole file; 0, or -1 with nothing to close. */
int st_open(st_file *file, const char *path);
void st_close(st_file *file);

/** A view of a tensor of BF16, F16 or F32; 0, or -1 if the file lacks it. */
int st_tensor(const st_file *file, const char *name, mla_tensor *view);

/** A list of I32 and its length; NULL if the file lacks it. */
const int32_t *st_int32(const st_file *file, const char *name, int32_t *count);

/** A number in the file's metadata; 0 if it lacks it. */
double st_number(const st_file *file, const char *key);

#ifdef __cplusplus
}
#endif

#endif
