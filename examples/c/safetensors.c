/* SPDX-License-Identifier: Apache-2.0 */
#include "safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/** One entry of the header, before its dtype is looked at. */
typedef struct st_entry {
  char dtype[8];
  int32_t ndim;
  int64_t shape[MLA_MAX_NDIM];
  int64_t begin;
  int64_t end;
} st_entry;

int st_open(st_file *file, const char *path) {
  FILE *stream = fopen(path, "rb");
  long size = -1;
  unsigned long long header_size = 0;
  int i;
  memset(file, 0, sizeof(*file));
  if (!stream) return -1;
  if (fseek(stream, 0, SEEK_END) == 0) size = ftell(stream);
  if (size >= 8 && fseek(stream, 0, SEEK_SET) == 0) {
    file->size = (size_t)size;
    file->bytes = malloc(file->size + 1);
  }
  if (file->bytes && fread(file->bytes, 1, file->size, stream) == file->size) {
    file->bytes[file->size] = 0;
    for (i = 7; i >= 0; --i) header_size = header_size << 8 | file->bytes[i];
  }
  fclose(stream);
  if (header_size == 0 || header_size > file->size - 8) {
    st_close(file);
    return -1;
  }
  file->header_size = (size_t)header_size;
  return 0;
}

void st_close(st_file *file) {
  free(file->bytes);
  memset(file, 0, sizeof(*file));
}

/** What follows `"key":`, or NULL. */
static const char *after_key(const st_file *file, const char *from, const char *key) {
  const char *end = (const char *)file->bytes + 8 + file->header_size;
  const size_t length = strlen(key);
  const char *at = from;
  while ((at = strchr(at, '"')) != NULL && at + length + 2 < end) {
    ++at;
    if (strncmp(at, key, length) == 0 && at[length] == '"' && at[length + 1] == ':') {
      return at + length + 2;
    }
  }
  return NULL;
}

/** The numbers of "[1,2,3]"; how many, or -1 if they are more than `limit`. */
static int32_t numbers(const char *list, int64_t *values, int32_t limit) {
  int32_t count = 0;
  char *end;
  if (!list || *list++ != '[') return -1;
  while (*list != ']') {
    if (count == limit) return -1;
    values[count++] = strtoll(list, &end, 10);
    if (end == list) return -1;
    list = *end == ',' ? end + 1 : end;
  }
  return count;
}

static int find(const st_file *file, const char *name, st_entry *entry) {
  const char *at = after_key(file, (const char *)file->bytes + 8, name);
  const char *dtype;
  int64_t offsets[2];
  size_t length;
  if (!at || *at != '{') return -1;
  dtype = after_key(file, at, "dtype");
  if (!dtype || *dtype++ != '"') return -1;
  length = strcspn(dtype, "\"");
  if (length >= sizeof(entry->dtype)) return -1;
  memcpy(entry->dtype, dtype, length);
  entry->dtype[length] = 0;
  entry->ndim = numbers(after_key(file, at, "shape"), entry->shape, MLA_MAX_NDIM);
  if (entry->ndim < 1 || numbers(after_key(file, at, "data_offsets"), offsets, 2) != 2) return -1;
  entry->begin = offsets[0];
  entry->end = offsets[1];
  if (entry->begin < 0 || entry->end < entry->begin) return -1;
  return (size_t)entry->end <= file->size - 8 - file->header_size ? 0 : -1;
}

static void *start(const st_file *file, const st_entry *entry) {
  return file->bytes + 8 + file->header_size + (size_t)entry->begin;
}

int st_tensor(const st_file *file, const char *name, mla_tensor *view) {
  const mla_tensor empty = MLA_TENSOR_INIT;
  st_entry entry;
  int64_t stride = 1;
  int32_t i;
  *view = empty;
  if (find(file, name, &entry) != 0) return -1;
  if (strcmp(entry.dtype, "BF16") == 0) {
    view->dtype = MLA_DTYPE_BFLOAT16;
  } else if (strcmp(entry.dtype, "F16") == 0) {
    view->dtype = MLA_DTYPE_FLOAT16;
  } else if (strcmp(entry.dtype, "F32") == 0) {
    view->dtype = MLA_DTYPE_FLOAT32;
  } else {
    return -1;
  }
  view->data = start(file, &entry);
  view->ndim = entry.ndim;
  for (i = entry.ndim - 1; i >= 0; --i) {
    view->shape[i] = entry.shape[i];
    view->strides[i] = stride;
    stride *= entry.shape[i];
  }
  return 0;
}

const int32_t *st_int32(const st_file *file, const char *name, int32_t *count) {
  st_entry entry;
  if (find(file, name, &entry) != 0 || strcmp(entry.dtype, "I32") != 0 || entry.ndim != 1) {
    return NULL;
  }
  *count = (int32_t)entry.shape[0];
  return (const int32_t *)start(file, &entry);
}

double st_number(const st_file *file, const char *key) {
  const char *at = after_key(file, (const char *)file->bytes + 8, key);
  return at ? strtod(*at == '"' ? at + 1 : at, NULL) : 0.0;
}
