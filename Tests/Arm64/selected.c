// Attention to selected rows, wherever they lie, against double.
#include "kernels.h"

// One query's distance from its partial result, of its bound.
static double error_of(const mla_attend_rows_args *a, const void *const *rows, int count, int query,
                       const float *out, double bound) {
  int qk = (int)a->dims.qk_head_dim, dv = (int)a->dims.v_head_dim;
  double sum = 0, worst = 0, top = -INFINITY, *scores = take(sizeof(double) * (size_t)(count + 1));
  for (int j = 0; j < count; j++) {
    scores[j] = 0;
    for (int d = 0; d < qk; d++)
      scores[j] += get(a->q, query * a->q_stride + d, a->format) * get(rows[j], d, a->format);
    scores[j] *= a->scale;
    top = larger(scores[j], top);
  }
  for (int j = 0; j < count; j++) sum += exp(scores[j] - top);
  double total = (double)out[dv + 1] + out[dv + 2];
  for (int d = 0; d < dv && count > 0; d++) {
    double expected = 0;
    for (int j = 0; j < count; j++) expected += exp(scores[j] - top) / sum * get(rows[j], d, a->format);
    worst = larger(worst, fabs(expected - out[d] / total) / bound);
  }
  free(scores);
  if (count == 0) return out[dv] == -INFINITY && total == 0 && out[0] == 0 ? worst : INFINITY;
  return larger(worst, fabs(top + log(sum) - (out[dv] + log2(total)) * log(2)) / 2e-4);
}

// In calls of some rows each, or of as many as can be.
static void attend(const mla_rows_kernel *kernel, mla_attend_rows_args *a, const void *const *rows, int count,
                   int in_most, float *out) {
  int first = 0;
  a->is_first = 1, a->next = rows, a->num_next = count < 2 ? count : 2;
  do {
    int left = count - first, most = left < kernel->row_block ? left : (int)kernel->row_block;
    a->rows = rows + first, a->num_rows = in_most || next() % 4 ? most : between(0, most);
    first += (int)a->num_rows;
    a->out = first == count ? out : NULL;
    kernel->attend(a);
    a->is_first = 0;
  } while (!a->out);
}

// Whether packed blocks of the same rows give other bits.
static int differs_from_dense(const mla_attention_kernel *kernel, const mla_attend_rows_args *a,
                              const void *const *rows, int count, const float *out) {
  int64_t block = kernel->packed_block_bytes(a->dims), dim = a->dims.qk_head_dim, size = size_of(a->format);
  int64_t bytes = a->num_queries * a->out_stride * 4;
  char *k = take(count * dim * size), *packed = take((count / kernel->key_block + 1) * block);
  char *dense = take(bytes);
  for (int j = 0; j < count; j++) memcpy(k + j * dim * size, rows[j], (size_t)(dim * size));
  for (int64_t first = 0; first < count; first += kernel->key_block) {
    int64_t keys = count - first < kernel->key_block ? count - first : kernel->key_block;
    mla_pack_args pack = {a->dims, k + first * dim * size, k + first * dim * size, dim, dim, keys, a->format,
                          packed + first / kernel->key_block * block, NULL, NULL};
    kernel->pack(&pack);
  }
  void *scratch = take(kernel->scratch_bytes(a->dims));
  for (int64_t first = 0; first < a->num_queries; first += kernel->query_tile) {
    int64_t left = a->num_queries - first;
    mla_attend_args tile = {.dims = a->dims, .q = (const char *)a->q + first * dim * size, .q_stride = dim,
                            .num_queries = left < kernel->query_tile ? left : kernel->query_tile,
                            .packed = packed, .key_end = count, .causal_offset = INT64_MAX / 2,
                            .scale = a->scale, .format = a->format, .out_format = MLA_FORMAT_PARTIAL,
                            .out = dense + first * a->out_stride * 4, .out_stride = a->out_stride,
                            .scratch = scratch};
    kernel->attend(&tile);
  }
  int differs = memcmp(dense, out, (size_t)bytes) != 0;
  free(k), free(packed), free(dense), free(scratch);
  return differs;
}

void check_selected(const mla_rows_kernel *kernel, const mla_attention_kernel *dense, int32_t format,
                    const char *name) {
  enum { MOST = 300 };
  double worst = 0;
  int different = 0;
  // Probabilities that are rounded to bf16.
  double bound = kernel->family == MLA_FAMILY_NEON_BF16 ? 4e-3 : 2e-5;
  for (int round = 0; round < 25; round++) {
    int qk = between(1, 200), dim = (qk + 31) / 32 * 32, count = round ? between(0, MOST) : 0;
    int queries = between(1, 60), dv = between(1, qk), size = size_of(format);
    const void *rows[MOST + 1];
    char *all = random_rows((count + 1) * dim, format);
    for (int j = 0; j < count; j++) {
      rows[j] = all + (j * 7 + 3) % count * dim * size;
      memset(all + (j * dim + qk) * size, 0, (size_t)((dim - qk) * size));
    }
    mla_attend_rows_args a = {.dims = {qk, dv}, .q_stride = qk, .num_queries = queries, .format = format,
                              .out_stride = dv + MLA_PARTIAL_STATISTICS, .next_bytes = dim * size};
    a.q = random_rows(queries * qk, format), a.scale = (float)between(1, 100) / 100;
    a.scratch = take(kernel->scratch_bytes(a.dims, queries));
    float *out = take(queries * a.out_stride * 4);
    attend(kernel, &a, rows, count, round % 2, out);
    for (int i = 0; i < queries; i++)
      worst = larger(worst, error_of(&a, rows, count, i, out + i * a.out_stride, bound));
    different += round % 2 && differs_from_dense(dense, &a, rows, count, out);
    free(all), free((void *)a.q), free(a.scratch), free(out);
  }
  char text[64];
  snprintf(text, sizeof text, "selected rows of %s against double", name);
  check(text, worst < 1, worst);
  snprintf(text, sizeof text, "selected rows of %s as in packed blocks", name);
  check(text, different == 0, different);
}
