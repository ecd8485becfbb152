// The kernels of 64-bit Arm: each kernel of each table against
// double precision, over random shapes, from memory full of NaN. The kernel tests
// proper (kernel_tests.sh) need a Swift for that architecture; this needs a C compiler only.
#include "kernels.h"

#include <sys/auxv.h>

#include "tables.h"

static mla_kernel_table table;
static const char *table_name;
static int failures;

void check(const char *name, int ok, double worst) {
  printf("%s %s: %s (worst %.1e)\n", ok ? "ok" : "not ok", table_name, name, worst);
  failures += !ok;
}

static const int formats[] = {MLA_FORMAT_FLOAT32, MLA_FORMAT_FLOAT16, MLA_FORMAT_BFLOAT16};
static const char *const names[] = {"fp32", "fp16", "bf16"};

// One query's attention in double precision; its distance from out and lse, of their bounds.
static double attention_error(const mla_attend_args *a, const void *k, const void *v, int query,
                              const float *out, float lse, double bound) {
  int qk = (int)a->dims.qk_head_dim, dv = (int)a->dims.v_head_dim;
  int64_t end = query + a->causal_offset + 1 < a->key_end ? query + a->causal_offset + 1 : a->key_end;
  double sum = 0, worst = 0, top = -INFINITY, *scores = malloc(sizeof(double) * (size_t)a->key_end);
  for (int64_t j = 0; j < end; j++) {
    scores[j] = 0;
    for (int d = 0; d < qk; d++)
      scores[j] += get(a->q, query * a->q_stride + d, a->format) * get(k, j * qk + d, a->format);
    scores[j] *= a->scale;
    top = scores[j] > top ? scores[j] : top;
  }
  for (int64_t j = 0; j < end; j++) sum += exp(scores[j] - top);
  for (int d = 0; d < dv; d++) {
    double expected = 0;
    for (int64_t j = 0; j < end; j++) expected += exp(scores[j] - top) / sum * get(v, j * dv + d, a->format);
    worst = larger(worst, fabs(expected - out[d]) / bound);
  }
  free(scores);
  if (end <= 0) return lse == -INFINITY ? worst : INFINITY;
  return larger(worst, fabs(top + log(sum) - lse) / 2e-4);
}

static void attention(const mla_attention_kernel *kernel, int format, const char *name) {
  double worst = 0;
  // Probabilities that are rounded to bf16.
  double bound = kernel->family == MLA_FAMILY_NEON_BF16 ? 4e-3 : 2e-5;
  for (int round = 0; round < 25; round++) {
    mla_kernel_dims dims = {between(1, 200), between(1, 130)};
    int queries = between(1, (int)kernel->query_tile), keys = between(1, 3 * (int)kernel->key_block);
    int64_t block = kernel->packed_block_bytes(dims), size = size_of(format);
    char *k = random_rows(keys * dims.qk_head_dim, format), *v = random_rows(keys * dims.v_head_dim, format);
    char *packed = take((keys / kernel->key_block + 1) * block);
    float *out = take(queries * dims.v_head_dim * 4), *lse = take(queries * 4);
    for (int64_t first = 0; first < keys; first += kernel->key_block) {
      int64_t count = keys - first < kernel->key_block ? keys - first : kernel->key_block;
      mla_pack_args pack = {dims, k + first * dims.qk_head_dim * size, v + first * dims.v_head_dim * size,
                            dims.qk_head_dim, dims.v_head_dim, count, format,
                            packed + first / kernel->key_block * block, NULL, NULL};
      kernel->pack(&pack);
    }
    mla_attend_args a = {.dims = dims, .num_queries = queries, .packed = packed, .key_end = keys,
                         .format = format, .out = out, .lse = lse, .out_multiplier = 1};
    a.q = random_rows(queries * dims.qk_head_dim, format), a.q_stride = dims.qk_head_dim;
    a.causal_offset = round % 3 ? keys - between(0, queries) : INT64_MAX / 2;
    a.scale = (float)between(1, 100) / 100;
    a.out_format = MLA_FORMAT_FLOAT32, a.out_stride = dims.v_head_dim;
    a.scratch = take(kernel->scratch_bytes(dims));
    kernel->attend(&a);
    for (int i = 0; i < queries; i++)
      worst = larger(worst, attention_error(&a, k, v, i, out + i * dims.v_head_dim, lse[i], bound));
    free(k), free(v), free(packed), free(out), free(lse), free((void *)a.q), free(a.scratch);
  }
  char text[64];
  snprintf(text, sizeof text, "attention of %s against double", name);
  check(text, worst < 1, worst);
}

static void *pack_rows(const mla_projection_kernel *kernel, void (*pack)(const mla_pack_rows_args *),
                       const void *rows, int count, int dim, int format) {
  mla_pack_rows_args args = {rows, dim, count, dim, format,
                             take(pack == kernel->pack_tokens ? kernel->packed_tokens_bytes(count, dim)
                                                              : kernel->packed_weights_bytes(count, dim))};
  pack(&args);
  return args.packed;
}

static void projection(const mla_projection_kernel *kernel, int format, const char *name) {
  double worst = 0;
  for (int round = 0; round < 25; round++) {
    int tokens = between(1, 64), weights = between(1, 80), dim = between(1, 300);
    void *t = random_rows(tokens * dim, format), *w = random_rows(weights * dim, format);
    float *out = take(tokens * weights * 4);
    mla_project_args a = {pack_rows(kernel, kernel->pack_tokens, t, tokens, dim, format), tokens,
                          pack_rows(kernel, kernel->pack_weights, w, weights, dim, format), weights, dim,
                          MLA_FORMAT_FLOAT32, out, weights};
    kernel->project(&a);
    for (int i = 0; i < tokens; i++)
      for (int j = 0; j < weights; j++) {
        double expected = 0;
        for (int d = 0; d < dim; d++) expected += get(t, i * dim + d, format) * get(w, j * dim + d, format);
        worst = larger(worst, fabs(expected - out[i * weights + j]));
      }
    free(t), free(w), free(out), free((void *)a.tokens), free((void *)a.weights);
  }
  char text[64];
  snprintf(text, sizeof text, "projection of %s against double", name);
  check(text, worst < 5e-5, worst);
}

// A key of infinite value is that of the queries that see it: of query 1 on.
static void infinite_values(const mla_attention_kernel *kernel, int format, const char *name) {
  enum { QUERIES = 3, KEYS = 40, DIM = 32, KEY = 31 };
  mla_kernel_dims dims = {DIM, DIM};
  float infinity = INFINITY, out[QUERIES * DIM];
  char *q = random_rows(QUERIES * DIM, format), *k = random_rows(KEYS * DIM, format);
  char *v = random_rows(KEYS * DIM, format), *packed = take(kernel->packed_block_bytes(dims));
  // The upper half of an fp32 infinity is bf16's.
  if (format == MLA_FORMAT_FLOAT32) memcpy(v + KEY * DIM * 4, &infinity, 4);
  else if (format == MLA_FORMAT_BFLOAT16) memcpy(v + KEY * DIM * 2, (char *)&infinity + 2, 2);
  else ((__fp16 *)(void *)v)[KEY * DIM] = (__fp16)infinity;
  mla_pack_args pack = {dims, k, v, DIM, DIM, KEYS, format, packed, NULL, NULL};
  kernel->pack(&pack);
  mla_attend_args a = {.dims = dims, .q = q, .q_stride = DIM, .num_queries = QUERIES, .packed = packed,
                       .key_end = KEYS, .causal_offset = KEY - 1, .scale = 0.1f, .format = format,
                       .out = out, .out_format = MLA_FORMAT_FLOAT32, .out_stride = DIM,
                       .out_multiplier = 1, .scratch = take(kernel->scratch_bytes(dims))};
  kernel->attend(&a);
  int wrong = 0;
  for (int i = 0; i < QUERIES * DIM; i++) wrong += isfinite(out[i]) == (i % DIM == 0 && i >= DIM);
  char text[64];
  snprintf(text, sizeof text, "infinite values of %s are whose they are", name);
  check(text, wrong == 0, wrong);
  free(q), free(k), free(v), free(packed), free(a.scratch);
}

// A block made of latents: the bits of projecting into rows and packing these.
static void block_projection(const mla_attention_kernel *attention, const mla_projection_kernel *kernel,
                             int format, const char *name) {
  int wrong = 0;
  for (int round = 0; round < 25; round++) {
    int keys = between(1, (int)attention->key_block), rank = between(1, 130), nope = between(1, 90);
    int rope = round % 5 ? between(1, 70) : 0, dv = between(1, 100), size = size_of(format);
    mla_kernel_dims dims = {nope + rope, dv};
    int64_t bytes = attention->packed_block_bytes(dims);
    char *latents = random_rows(keys * rank, format), *ropes = random_rows(keys * (rope + 1), format);
    char *kw = random_rows(nope * rank, format), *vw = random_rows(dv * rank, format);
    char *k = take(keys * dims.qk_head_dim * size), *v = take(keys * dv * size);
    char *fused = take(bytes), *packed = take(bytes);
    void *tokens = pack_rows(kernel, kernel->pack_tokens, latents, keys, rank, format);
    void *key_weights = pack_rows(kernel, kernel->pack_weights, kw, nope, rank, format);
    void *value_weights = pack_rows(kernel, kernel->pack_weights, vw, dv, rank, format);
    mla_project_block_args block = {dims, tokens, keys, rank, key_weights, nope, value_weights, ropes,
                                    rope + 1, format, fused};
    kernel->project_block(&block);
    mla_project_args key_rows = {tokens, keys, key_weights, nope, rank, format, k, dims.qk_head_dim};
    kernel->project(&key_rows);
    for (int i = 0; i < keys; i++)
      memcpy(k + (i * dims.qk_head_dim + nope) * size, ropes + i * (rope + 1) * size, (size_t)(rope * size));
    mla_project_args value_rows = {tokens, keys, value_weights, dv, rank, format, v, dv};
    kernel->project(&value_rows);
    mla_pack_args pack = {dims, k, v, dims.qk_head_dim, dv, keys, format, packed, NULL, NULL};
    attention->pack(&pack);
    wrong += memcmp(fused, packed, (size_t)bytes) != 0;
    free(latents), free(ropes), free(kw), free(vw), free(k), free(v), free(fused), free(packed);
    free(tokens), free(key_weights), free(value_weights);
  }
  char text[64];
  snprintf(text, sizeof text, "blocks of %s as by way of rows", name);
  check(text, wrong == 0, wrong);
}

static void check_table(void) {
  const mla_attention_kernel *attentions[] = {&table.fp32, &table.fp16, &table.bf16};
  const mla_projection_kernel *projections[] = {&table.fp32_projection, &table.fp16_projection,
                                                &table.bf16_projection};
  for (int i = 0; i < 3; i++) attention(attentions[i], formats[i], names[i]);
  for (int i = 0; i < 3; i++) infinite_values(attentions[i], formats[i], names[i]);
  for (int i = 0; i < 3; i++) projection(projections[i], formats[i], names[i]);
  for (int i = 0; i < 3; i++) block_projection(attentions[i], projections[i], formats[i], names[i]);
  const mla_rows_kernel *rows[] = {&table.fp32_rows, &table.fp16_rows, &table.bf16_rows};
  for (int i = 0; i < 3; i++) check_selected(rows[i], attentions[i], formats[i], names[i]);
  const mla_index_kernel *indices[] = {&table.fp32_index, &table.fp16_index, &table.bf16_index};
  for (int i = 0; i < 3; i++) check_index(indices[i], formats[i], names[i]);
  check_rows(&table);
}

int main(void) {
  for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
    if ((getauxval(AT_HWCAP2) & tables[i].hwcap2) != tables[i].hwcap2) continue;
    table_name = tables[i].name;
    tables[i].fill(&table);
    check_table();
  }
  return failures != 0;
}
