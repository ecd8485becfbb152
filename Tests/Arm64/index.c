// The indexer's scores against double.
#include "kernels.h"

static void *packed(int64_t (*bytes)(int64_t, int64_t), void (*pack)(const mla_pack_rows_args *), const void *rows,
                    int64_t count, int64_t dim, int32_t format) {
  mla_pack_rows_args args = {rows, dim, count, dim, format, take(bytes(count, dim))};
  pack(&args);
  return args.packed;
}

void check_index(const mla_index_kernel *kernel, int32_t format, const char *name) {
  double worst = 0;
  for (int round = 0; round < 40; round++) {
    int keys = between(1, (int)kernel->key_block), heads = between(1, 20), dim = between(1, 140);
    void *k = random_rows(keys * dim, format), *q = random_rows(heads * dim, format);
    float *weights = random_rows(heads, MLA_FORMAT_FLOAT32), *scales = take(kernel->key_block * 4);
    float *scores = take(kernel->key_block * 4);
    for (int s = 0; s < keys; s++) scales[s] = (float)fabs(uniform());
    void *columns = packed(kernel->packed_keys_bytes, kernel->pack_keys, k, keys, dim, format);
    void *panels = packed(kernel->packed_queries_bytes, kernel->pack_queries, q, heads, dim, format);
    mla_index_scores_args args = {columns, keys, panels, heads, dim, weights, round % 2 ? scales : NULL, scores};
    kernel->score(&args);
    for (int s = 0; s < keys; s++) {
      double sum = 0, sizes = 0;
      for (int h = 0; h < heads; h++) {
        double product = 0, size = 0;
        for (int d = 0; d < dim; d++) {
          double term = get(q, h * dim + d, format) * get(k, s * dim + d, format);
          product += term, size += fabs(term);
        }
        sum += (double)weights[h] * fmax(product, 0), sizes += fabs((double)weights[h]) * size;
      }
      double scale = round % 2 ? (double)scales[s] : 1;
      worst = larger(worst, fabs(scores[s] - scale * sum) / ((dim + heads + 2) * 0x1p-24 * scale * sizes));
    }
    free(k), free(q), free(weights), free(scales), free(scores), free(columns), free(panels);
  }
  char text[64];
  snprintf(text, sizeof text, "index of %s against double, of its bound", name);
  check(text, worst <= 1, worst);
}
