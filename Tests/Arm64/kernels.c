// The kernels of 64-bit Arm: each kernel of each table against
// double precision, over random shapes, from memory full of NaN. The kernel tests
// proper need a Swift for that architecture; this needs a C compiler only.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

#include "mla_kernel_abi.h"
#include "tables.h"

static mla_kernel_table table;
static const char *table_name;
static int failures;

static uint64_t state = 1;
static uint32_t next(void) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(state >> 33);
}
static int between(int low, int high) { return low + (int)(next() % (uint32_t)(high - low + 1)); }
static double uniform(void) { return (double)next() / 1073741824.0 - 1; }

static void check(const char *name, int ok, double worst) {
  printf("%s %s: %s (worst %.1e)\n", ok ? "ok" : "not ok", table_name, name, worst);
  failures += !ok;
}

// Elements as the compiler converts them.
static int size_of(int format) { return format == MLA_FORMAT_FLOAT32 ? 4 : 2; }

static double get(const void *p, int64_t i, int format) {
  float f;
  if (format == MLA_FORMAT_FLOAT32) return ((const float *)p)[i];
  if (format == MLA_FORMAT_FLOAT16) return (double)((const __fp16 *)p)[i];
  uint32_t bits = (uint32_t)((const uint16_t *)p)[i] << 16;
  memcpy(&f, &bits, sizeof f);
  return f;
}

static void *take(int64_t bytes) {
  int64_t rounded = (bytes + 63) / 64 * 64 + 64;
  void *p = aligned_alloc(64, (size_t)rounded);
  memset(p, 0xff, (size_t)rounded);
  return p;
}

static void *random_rows(int64_t count, int format) {
  char *p = take(count * size_of(format));
  for (int64_t i = 0; i < count; i++) {
    float f = (float)uniform();
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if (format == MLA_FORMAT_FLOAT32) ((float *)p)[i] = f;
    if (format == MLA_FORMAT_FLOAT16) ((__fp16 *)p)[i] = (__fp16)f;
    if (format == MLA_FORMAT_BFLOAT16) ((uint16_t *)p)[i] = (uint16_t)(bits >> 16);
  }
  return p;
}

static const int formats[] = {MLA_FORMAT_FLOAT32, MLA_FORMAT_FLOAT16, MLA_FORMAT_BFLOAT16};
static const char *const names[] = {"fp32", "fp16", "bf16"};

static double larger(double a, double b) { return b <= a ? a : b; }

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

static void combining(void) {
  enum { ROWS = 3, MOST = 5 };
  double worst = 0;
  for (int round = 0; round < 50; round++) {
    int dims = between(1, 40), count = between(1, MOST), stride = dims + MLA_PARTIAL_STATISTICS;
    float *parts = random_rows(count * ROWS * stride, MLA_FORMAT_FLOAT32), *out = take(ROWS * dims * 4);
    float lse[ROWS];
    double weights[MOST][ROWS], sums[ROWS] = {0}, expected[ROWS * 40] = {0};
    for (int p = 0; p < count; p++)
      for (int r = 0; r < ROWS; r++) {
        float *row = parts + (p * ROWS + r) * stride, *statistics = row + dims;
        int has_keys = next() % 4 != 0;
        for (int d = 0; d < dims && !has_keys; d++) row[d] = 0;
        statistics[0] = has_keys ? (float)(10 * uniform()) : -INFINITY;
        statistics[1] = has_keys ? (float)between(1, 9) : 0;
        statistics[2] = 0;
        weights[p][r] = has_keys ? exp2(statistics[0]) : 0;
        sums[r] += weights[p][r] * statistics[1];
        for (int d = 0; d < dims; d++) expected[r * 40 + d] += weights[p][r] * row[d];
      }
    mla_combine_args a = {.num_rows = ROWS, .v_head_dim = dims, .sum = parts, .row_stride = stride,
                          .added = parts + ROWS * stride, .added_stride = ROWS * stride,
                          .num_added = count - 1, .out_format = MLA_FORMAT_FLOAT32,
                          .out_multiplier = 1, .out = out, .out_stride = dims, .lse = lse};
    table.combine(&a);
    for (int r = 0; r < ROWS; r++) {
      worst = larger(worst, sums[r] == 0 ? (lse[r] == -INFINITY ? 0 : INFINITY) : fabs(log(sums[r]) - lse[r]));
      for (int d = 0; d < dims; d++)
        worst = larger(worst, fabs((sums[r] == 0 ? 0 : expected[r * 40 + d] / sums[r]) - out[r * dims + d]));
    }
    free(parts), free(out);
  }
  check("combining against double", worst < 1e-5, worst);
}

static void merging(void) {
  double worst = 0;
  for (int round = 0; round < 50; round++) {
    enum { ROWS = 3 };
    int dims = between(1, 40);
    float *parts = random_rows(2 * ROWS * dims, MLA_FORMAT_FLOAT32), *out = take(ROWS * dims * 4);
    float lses[2][ROWS], lse[ROWS];
    for (int s = 0; s < 2; s++)
      for (int r = 0; r < ROWS; r++) lses[s][r] = next() % 4 ? (float)(10 * uniform()) : -INFINITY;
    mla_merge_rows_args a = {.num_rows = ROWS, .v_head_dim = dims, .prefix = {parts, dims, lses[0]},
                             .suffix = {parts + ROWS * dims, dims, lses[1]}, .out_multiplier = 1,
                             .out = out, .out_stride = dims, .lse = lse};
    a.format = a.out_format = MLA_FORMAT_FLOAT32;
    table.merge(&a);
    for (int r = 0; r < ROWS; r++) {
      double sum = exp(lses[0][r]) + exp(lses[1][r]);
      worst = larger(worst, sum == 0 ? (lse[r] == -INFINITY ? 0 : INFINITY) : fabs(log(sum) - lse[r]));
      for (int d = 0; d < dims; d++) {
        double expected = 0;
        for (int s = 0; s < 2 && sum > 0; s++)
          expected += exp(lses[s][r]) / sum * parts[(s * ROWS + r) * dims + d];
        worst = larger(worst, fabs(expected - out[r * dims + d]));
      }
    }
    free(parts), free(out);
  }
  check("merging against double", worst < 1e-5, worst);
}

// Every fp16 number there is, and random fp32 ones, by the compiler's own rules.
static void conversion(void) {
  enum { COUNT = 65536 };
  uint16_t *halves = take(COUNT * 2), *back = take(COUNT * 2);
  float *floats = take(COUNT * 4);
  int wrong = 0;
  for (int i = 0; i < COUNT; i++) halves[i] = (uint16_t)i;
  mla_convert_args args = {.num_rows = 1, .row_dim = COUNT, .multiplier = 1};
  args.rows = halves, args.format = MLA_FORMAT_FLOAT16;
  args.out = floats, args.out_format = MLA_FORMAT_FLOAT32;
  table.convert(&args);
  for (int i = 0; i < COUNT; i++) {
    float expected = (float)get(halves, i, MLA_FORMAT_FLOAT16);
    wrong += !(floats[i] == expected || (isnan(floats[i]) && isnan(expected)));
  }
  for (int i = 0; i < COUNT; i++) floats[i] = (float)ldexp(uniform(), between(-27, 17));
  args.rows = floats, args.format = MLA_FORMAT_FLOAT32;
  args.out = back, args.out_format = MLA_FORMAT_FLOAT16;
  table.convert(&args);
  for (int i = 0; i < COUNT; i++) {
    __fp16 expected = (__fp16)floats[i];
    wrong += memcmp(&expected, back + i, sizeof expected) != 0;
  }
  check("conversion from and to fp16 as in hardware", wrong == 0, wrong);
  free(halves), free(back), free(floats);
}

static void check_table(void) {
  const mla_attention_kernel *attentions[] = {&table.fp32, &table.fp16, &table.bf16};
  const mla_projection_kernel *projections[] = {&table.fp32_projection, &table.fp16_projection,
                                                &table.bf16_projection};
  for (int i = 0; i < 3; i++) attention(attentions[i], formats[i], names[i]);
  for (int i = 0; i < 3; i++) projection(projections[i], formats[i], names[i]);
  combining();
  merging();
  conversion();
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
