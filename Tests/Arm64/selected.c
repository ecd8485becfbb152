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

// In calls of some rows each.
static void attend(const mla_rows_kernel *kernel, mla_attend_rows_args *a, const void *const *rows, int count,
                   float *out) {
  int first = 0;
  a->is_first = 1, a->next = rows, a->num_next = count < 2 ? count : 2;
  do {
    int left = count - first, most = left < kernel->row_block ? left : (int)kernel->row_block;
    a->rows = rows + first, a->num_rows = next() % 4 ? most : between(0, most);
    first += (int)a->num_rows;
    a->out = first == count ? out : NULL;
    kernel->attend(a);
    a->is_first = 0;
  } while (!a->out);
}

void check_selected(const mla_rows_kernel *kernel, int32_t format, const char *name) {
  enum { MOST = 300 };
  double worst = 0;
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
    attend(kernel, &a, rows, count, out);
    for (int i = 0; i < queries; i++)
      worst = larger(worst, error_of(&a, rows, count, i, out + i * a.out_stride, bound));
    free(all), free((void *)a.q), free(a.scratch), free(out);
  }
  char text[64];
  snprintf(text, sizeof text, "selected rows of %s against double", name);
  check(text, worst < 1, worst);
}
