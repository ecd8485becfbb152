// The kernels that work on rows alone, against double precision and the compiler's conversions.
#include "kernels.h"

static void combining(const mla_kernel_table *table) {
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
    table->combine(&a);
    for (int r = 0; r < ROWS; r++) {
      worst = larger(worst, sums[r] == 0 ? (lse[r] == -INFINITY ? 0 : INFINITY) : fabs(log(sums[r]) - lse[r]));
      for (int d = 0; d < dims; d++)
        worst = larger(worst, fabs((sums[r] == 0 ? 0 : expected[r * 40 + d] / sums[r]) - out[r * dims + d]));
    }
    free(parts), free(out);
  }
  check("combining against double", worst < 1e-5, worst);
}

static void merging(const mla_kernel_table *table) {
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
    table->merge(&a);
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
static void conversion(const mla_kernel_table *table) {
  enum { COUNT = 65536 };
  uint16_t *halves = take(COUNT * 2), *back = take(COUNT * 2);
  float *floats = take(COUNT * 4);
  int wrong = 0;
  for (int i = 0; i < COUNT; i++) halves[i] = (uint16_t)i;
  mla_convert_args args = {.num_rows = 1, .row_dim = COUNT, .multiplier = 1};
  args.rows = halves, args.format = MLA_FORMAT_FLOAT16;
  args.out = floats, args.out_format = MLA_FORMAT_FLOAT32;
  table->convert(&args);
  for (int i = 0; i < COUNT; i++) {
    float expected = (float)get(halves, i, MLA_FORMAT_FLOAT16);
    wrong += !(floats[i] == expected || (isnan(floats[i]) && isnan(expected)));
  }
  for (int i = 0; i < COUNT; i++) floats[i] = (float)ldexp(uniform(), between(-27, 17));
  args.rows = floats, args.format = MLA_FORMAT_FLOAT32;
  args.out = back, args.out_format = MLA_FORMAT_FLOAT16;
  table->convert(&args);
  for (int i = 0; i < COUNT; i++) {
    __fp16 expected = (__fp16)floats[i];
    wrong += memcmp(&expected, back + i, sizeof expected) != 0;
  }
  check("conversion from and to fp16 as in hardware", wrong == 0, wrong);
  free(halves), free(back), free(floats);
}

void check_rows(const mla_kernel_table *table) {
  combining(table);
  merging(table);
  conversion(table);
}
