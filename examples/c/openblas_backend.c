/*
 * A backend of your own in C: attention by two matrix products of OpenBLAS.
 *
 * Queries are taken in blocks, and so are the keys that a block meets: what is kept of the
 * keys so far is, for each query, its largest score, the sum of the weights and the weighted
 * sum of the values, which are scaled down whenever a larger score turns up. Memory is that
 * of one block of each, whatever the prompt.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "openblas_backend.h"

#include <cblas.h>
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { query_block = 128, key_block = 1024 };

/** What prepare_metadata has handed in; kept until the last run that began with it ends. */
typedef struct batch {
  int users;
  int32_t num_requests;
  int32_t query_start_loc[];
} batch;

typedef struct instance {
  float scale;
  int qk_dim;
  int v_dim;
  pthread_mutex_t mutex;
  /** Under the mutex; NULL before the first prepare_metadata. */
  batch *prepared;
} instance;

/** Memory of a run: a block each of q, k, v and scores, and the state of its queries. */
typedef struct scratch {
  float *q, *k, *v, *scores, *sums_of_v, *largest, *sums;
} scratch;

/** One head's queries [row, row + rows) of one request, and the tensors of the run. */
typedef struct queries {
  const mla_tensor *q, *k, *v, *out, *lse;
  int64_t head;
  int64_t row;
  int rows;
} queries;

/* --- tensors of bf16 and fp32 ------------------------------------------- */

static int is_served(int32_t dtype) {
  return dtype == MLA_DTYPE_BFLOAT16 || dtype == MLA_DTYPE_FLOAT32;
}

/** bf16 is the upper half of fp32. */
static float of_bf16(uint16_t half) {
  const uint32_t bits = (uint32_t)half << 16;
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

/** Rounded to nearest even. */
static uint16_t to_bf16(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  if (value != value) return (uint16_t)(bits >> 16 | 0x40);
  return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/** Copies one head of rows [begin, begin + count) into packed fp32 rows. BLAS could read fp32
    in place, but for strides: those of a tensor may be 0 or larger than its integers. */
static void load(const mla_tensor *from, int64_t head, int64_t begin, int count, float *to) {
  const int64_t dim = from->shape[2];
  int64_t i;
  int row;
  for (row = 0; row < count; ++row, to += dim) {
    const int64_t at = (begin + row) * from->strides[0] + head * from->strides[1];
    if (from->dtype == MLA_DTYPE_FLOAT32) {
      memcpy(to, (const float *)from->data + at, (size_t)dim * sizeof(float));
    } else {
      const uint16_t *halves = (const uint16_t *)from->data + at;
      for (i = 0; i < dim; ++i) to[i] = of_bf16(halves[i]);
    }
  }
}

static void store(const mla_tensor *to, int64_t head, int64_t row, const float *from) {
  const int64_t at = row * to->strides[0] + head * to->strides[1], dim = to->shape[2];
  int64_t i;
  if (to->dtype == MLA_DTYPE_FLOAT32) {
    memcpy((float *)to->data + at, from, (size_t)dim * sizeof(float));
  } else {
    for (i = 0; i < dim; ++i) ((uint16_t *)to->data)[at + i] = to_bf16(from[i]);
  }
}

/* --- attention ---------------------------------------------------------- */

/** Scores of one query become weights; what was summed up before is scaled to match. */
static void weigh(float *scores, int count, float *largest, float *sum, float *values, int v_dim) {
  float now = *largest, before;
  int i;
  for (i = 0; i < count; ++i) {
    if (scores[i] > now) now = scores[i];
  }
  /* Nothing but scores of -inf so far: they weigh nothing, unless one is NaN. */
  before = now == -INFINITY ? 1.0F : expf(*largest - now);
  *sum *= before;
  for (i = 0; i < count; ++i) {
    scores[i] = scores[i] == -INFINITY ? 0.0F : expf(scores[i] - now);
    *sum += scores[i];
  }
  cblas_sscal(v_dim, before, values, 1);
  *largest = now;
}

/** Lets a block of queries meet keys [begin, begin + keys), all of them or, where `causal`,
    query i the first i + 1. */
static void meet(const instance *self, const queries *block, const scratch *s, int64_t begin,
                 int keys, int causal) {
  int row;
  load(block->k, block->head, begin, keys, s->k);
  load(block->v, block->head, begin, keys, s->v);
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, block->rows, keys, self->qk_dim,
              self->scale, s->q, self->qk_dim, s->k, self->qk_dim, 0.0F, s->scores, keys);
  for (row = 0; row < block->rows; ++row) {
    float *values = s->sums_of_v + (ptrdiff_t)row * self->v_dim;
    float *scores = s->scores + (ptrdiff_t)row * keys;
    const int seen = causal ? row + 1 : keys;
    weigh(scores, seen, s->largest + row, s->sums + row, values, self->v_dim);
    /* Row by row, as a weight of 0 for the keys behind would let their NaN through. */
    if (causal) {
      cblas_sgemv(CblasRowMajor, CblasTrans, seen, self->v_dim, 1.0F, s->v, self->v_dim, scores, 1,
                  1.0F, values, 1);
    }
  }
  if (causal) return;
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, block->rows, self->v_dim, keys, 1.0F,
              s->scores, keys, s->v, self->v_dim, 1.0F, s->sums_of_v, self->v_dim);
}

static void finish(const instance *self, const queries *block, const scratch *s) {
  int row;
  for (row = 0; row < block->rows; ++row) {
    float *values = s->sums_of_v + (ptrdiff_t)row * self->v_dim;
    const float sum = s->sums[row];
    const int64_t token = block->row + row;
    int i;
    /* Without keys out is 0, and lse -inf by itself. */
    for (i = 0; i < self->v_dim; ++i) values[i] = sum == 0.0F ? 0.0F : values[i] / sum;
    store(block->out, block->head, token, values);
    if (block->lse) {
      float *lse = (float *)block->lse->data + block->head * block->lse->strides[0];
      lse[token * block->lse->strides[1]] = s->largest[row] + logf(sum);
    }
  }
}

/** Queries [begin, end) of one request to keys [first_key, last_key) or, where `causal`, each
    to those up to itself: then keys lie where queries do. */
static void attend(const instance *self, queries *block, const scratch *s, int64_t begin,
                   int64_t end, int64_t first_key, int64_t last_key, int causal) {
  for (block->head = 0; block->head < block->q->shape[1]; ++block->head) {
    for (block->row = begin; block->row < end; block->row += query_block) {
      const int64_t left = end - block->row;
      const int64_t seen_by_all = causal ? block->row : last_key;
      int64_t key;
      int i;
      block->rows = left < query_block ? (int)left : query_block;
      load(block->q, block->head, block->row, block->rows, s->q);
      memset(s->sums_of_v, 0, (size_t)block->rows * (size_t)self->v_dim * sizeof(float));
      for (i = 0; i < block->rows; ++i) s->largest[i] = -INFINITY, s->sums[i] = 0.0F;
      for (key = first_key; key < seen_by_all; key += key_block) {
        const int64_t keys = seen_by_all - key;
        meet(self, block, s, key, keys < key_block ? (int)keys : key_block, 0);
      }
      if (causal) meet(self, block, s, block->row, block->rows, 1);
      finish(self, block, s);
    }
  }
}

/* --- memory of a run ---------------------------------------------------- */

static size_t scratch_floats(const instance *self) {
  const size_t qk = (size_t)self->qk_dim, v = (size_t)self->v_dim;
  return query_block * (qk + v + key_block + 2) + key_block * (qk + v);
}

static void lay_out(const instance *self, float *memory, scratch *s) {
  const ptrdiff_t qk = self->qk_dim, v = self->v_dim;
  s->q = memory;
  s->k = s->q + query_block * qk;
  s->v = s->k + key_block * qk;
  s->scores = s->v + key_block * v;
  s->sums_of_v = s->scores + query_block * key_block;
  s->largest = s->sums_of_v + query_block * v;
  s->sums = s->largest + query_block;
}

/* --- the vtable --------------------------------------------------------- */

static mla_status fails(mla_status status, const char *message) {
  mla_set_last_error_message(message);
  return status;
}

/** Whether a run can begin, and where: in the caller's workspace, or in memory in `owned` for
    the run to free. */
static mla_status begin_run(const instance *self, const mla_tensor *q, const mla_tensor *out,
                            void *workspace, scratch *s, float **owned) {
  const uintptr_t align = sizeof(float);
  float *memory;
  *owned = NULL;
  if (!is_served(q->dtype) || !is_served(out->dtype)) {
    return fails(MLA_ERROR_UNSUPPORTED_CONFIGURATION,
                 "dtype: only bfloat16 and float32 are supported");
  }
  if (workspace) {
    const uintptr_t past = (uintptr_t)workspace % align;
    memory = (float *)(void *)((char *)workspace + (align - past) % align);
  } else {
    memory = *owned = malloc(scratch_floats(self) * sizeof(float));
    if (!memory) return fails(MLA_ERROR_OUT_OF_MEMORY, "no memory for the blocks of a run");
  }
  lay_out(self, memory, s);
  return MLA_OK;
}

static mla_status validate(void *context, const mla_selector_config *config, mla_reason_sink sink,
                           void *sink_context) {
  (void)context;
  if (!is_served(config->dtype)) sink(sink_context, "only bfloat16 and float32 are supported");
  return MLA_OK;
}

static mla_status create(void *context, const mla_backend_config *config, void **made) {
  instance *self = calloc(1, sizeof(*self));
  (void)context;
  if (!self || pthread_mutex_init(&self->mutex, NULL) != 0) {
    free(self);
    return fails(MLA_ERROR_OUT_OF_MEMORY, "no memory for a backend object");
  }
  self->scale = (float)config->scale;
  self->qk_dim = config->qk_nope_head_dim + config->qk_rope_head_dim;
  self->v_dim = config->v_head_dim;
  *made = self;
  return MLA_OK;
}

/** Puts a batch in the place of the one before; either may be NULL. */
static void replace(instance *self, batch *with) {
  batch *before;
  int unused;
  pthread_mutex_lock(&self->mutex);
  before = self->prepared;
  self->prepared = with;
  unused = before && --before->users == 0;
  pthread_mutex_unlock(&self->mutex);
  if (unused) free(before);
}

static void destroy(void *context, void *object) {
  instance *self = object;
  (void)context;
  replace(self, NULL);
  pthread_mutex_destroy(&self->mutex);
  free(self);
}

static mla_status prepare_metadata(void *context, void *object,
                                   const mla_prefill_metadata *metadata) {
  const size_t offsets = ((size_t)metadata->num_requests + 1) * sizeof(int32_t);
  batch *made = malloc(sizeof(*made) + offsets);
  (void)context;
  if (!made) return fails(MLA_ERROR_OUT_OF_MEMORY, "no memory for the batch");
  made->users = 1;
  made->num_requests = metadata->num_requests;
  memcpy(made->query_start_loc, metadata->query_start_loc, offsets);
  replace(object, made);
  return MLA_OK;
}

static batch *use_prepared(instance *self) {
  batch *used;
  pthread_mutex_lock(&self->mutex);
  used = self->prepared;
  if (used) ++used->users;
  pthread_mutex_unlock(&self->mutex);
  return used;
}

static void let_go(instance *self, batch *used) {
  int unused;
  pthread_mutex_lock(&self->mutex);
  unused = --used->users == 0;
  pthread_mutex_unlock(&self->mutex);
  if (unused) free(used);
}

/* --8<-- [start:run] */
static mla_status run_new_tokens(void *context, void *object, const mla_new_tokens_args *args) {
  instance *self = object;
  queries block = {args->q, args->k, args->v, args->out, args->lse, 0, 0, 0};
  scratch s;
  float *owned;
  batch *prepared = use_prepared(self);
  mla_status status;
  int32_t i;
  (void)context;
  if (!prepared) return fails(MLA_ERROR_INVALID_ARGUMENT, "prepare_metadata: must come first");
  status = begin_run(self, args->q, args->out, args->workspace, &s, &owned);
  for (i = 0; status == MLA_OK && i < prepared->num_requests; ++i) {
    const int32_t begin = prepared->query_start_loc[i], end = prepared->query_start_loc[i + 1];
    attend(self, &block, &s, begin, end, begin, end, 1);
  }
  let_go(self, prepared);
  free(owned);
  return status;
}
/* --8<-- [end:run] */

static mla_status run_context_chunk(void *context, void *object,
                                    const mla_context_chunk_args *args) {
  const instance *self = object;
  const mla_context_chunk *chunk = args->chunk;
  queries block = {args->q, args->k, args->v, args->out, args->lse, 0, 0, 0};
  scratch s;
  float *owned;
  const mla_status status =
      begin_run(self, args->q, args->out, args->workspace, &s, &owned);
  int32_t i;
  (void)context;
  for (i = 0; status == MLA_OK && i < chunk->num_requests; ++i) {
    attend(self, &block, &s, chunk->query_start_loc[i], chunk->query_start_loc[i + 1],
           chunk->cu_seq_lens[i], chunk->cu_seq_lens[i + 1], 0);
  }
  free(owned);
  return status;
}

static int64_t workspace_size(void *context, void *object) {
  (void)context;
  /* One more, as a workspace may begin anywhere. */
  return (int64_t)((scratch_floats(object) + 1) * sizeof(float));
}

/* --8<-- [start:register] */
mla_status openblas_backend_register(const char *name) {
  mla_backend_vtable vtable = MLA_BACKEND_VTABLE_INIT;
  mla_backend_registration registration = MLA_BACKEND_REGISTRATION_INIT;
  vtable.backend_name = "OPENBLAS_SGEMM";
  vtable.validate = validate;
  vtable.create = create;
  vtable.destroy = destroy;
  vtable.prepare_metadata = prepare_metadata;
  vtable.run_prefill_new_tokens = run_new_tokens;
  vtable.run_prefill_context_chunk = run_context_chunk;
  vtable.workspace_size = workspace_size;
  registration.vtable = &vtable;
  /* An engine runs several calls at once; threads of each would fight for its cores. */
  openblas_set_num_threads(1);
  return mla_register_backend(name, &registration);
}
/* --8<-- [end:register] */
