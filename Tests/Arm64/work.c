// A kernel's work, a given number of times, for its instructions to be counted. Prints how many
// products a call adds up.
//
//   work TABLE attention|projection|rows|index fp32|bf16 TIMES
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mla_kernel_abi.h"
#include "tables.h"

enum { KEYS = 1024, RANK = 512, WEIGHTS = 256, TOKENS = 128, ROWS = 512, HEADS = 64, INDEX_DIM = 128 };

static const mla_kernel_dims dims = {192, 128};

static void *take(int64_t bytes) {
  void *p = aligned_alloc(64, (size_t)((bytes + 63) / 64 * 64));
  memset(p, 0x3c, (size_t)bytes);  // Numbers near 0.01 in either format.
  return p;
}

// All queries of a call to all keys.
static int64_t attend(const mla_attention_kernel *kernel, int format, int times) {
  int64_t block = kernel->packed_block_bytes(dims);
  mla_attend_args a = {.dims = dims, .num_queries = kernel->query_tile, .key_end = KEYS,
                       .causal_offset = INT64_MAX / 2, .scale = 0.07f, .format = format,
                       .out_format = format, .out_multiplier = 1};
  a.packed = take(KEYS / kernel->key_block * block);
  a.q = take(a.num_queries * dims.qk_head_dim * 4), a.q_stride = dims.qk_head_dim;
  a.out = take(a.num_queries * dims.v_head_dim * 4), a.out_stride = dims.v_head_dim;
  a.scratch = take(kernel->scratch_bytes(dims));
  for (int i = 0; i < times; i++) kernel->attend(&a);
  return a.num_queries * KEYS * (dims.qk_head_dim + dims.v_head_dim);
}

static int64_t project(const mla_projection_kernel *kernel, int format, int times) {
  mla_project_args a = {take(kernel->packed_tokens_bytes(TOKENS, RANK)), TOKENS,
                        take(kernel->packed_weights_bytes(WEIGHTS, RANK)), WEIGHTS, RANK, format,
                        take(TOKENS * WEIGHTS * 4), WEIGHTS};
  for (int i = 0; i < times; i++) kernel->project(&a);
  return TOKENS * WEIGHTS * RANK;
}

// A token's heads to rows that it has selected.
static int64_t attend_rows(const mla_rows_kernel *kernel, int format, int times) {
  const mla_kernel_dims shared = {RANK + 64, RANK};
  const void *rows[ROWS];
  float *out = take(HEADS * (RANK + MLA_PARTIAL_STATISTICS) * 4);
  for (int i = 0; i < ROWS; i++) rows[i] = take(shared.qk_head_dim * 4);
  mla_attend_rows_args a = {.dims = shared, .num_queries = HEADS, .scale = 0.04f, .format = format,
                            .out_stride = RANK + MLA_PARTIAL_STATISTICS};
  a.q = take(HEADS * shared.qk_head_dim * 4), a.q_stride = shared.qk_head_dim;
  a.scratch = take(kernel->scratch_bytes(shared, HEADS));
  for (int i = 0; i < times; i++)
    for (int64_t first = 0; first < ROWS; first += kernel->row_block) {
      a.rows = rows + first, a.is_first = first == 0;
      a.num_rows = kernel->row_block < ROWS - first ? kernel->row_block : ROWS - first;
      a.out = first + a.num_rows == ROWS ? out : NULL;
      kernel->attend(&a);
    }
  return (int64_t)HEADS * ROWS * (shared.qk_head_dim + shared.v_head_dim);
}

// A token's heads to a full block of keys.
static int64_t index_keys(const mla_index_kernel *kernel, int times) {
  mla_index_scores_args a = {.keys = take(kernel->packed_keys_bytes(kernel->key_block, INDEX_DIM)),
                             .num_keys = kernel->key_block,
                             .queries = take(kernel->packed_queries_bytes(HEADS, INDEX_DIM)),
                             .num_heads = HEADS, .head_dim = INDEX_DIM, .weights = take(HEADS * 4),
                             .scales = take(kernel->key_block * 4), .scores = take(kernel->key_block * 4)};
  for (int i = 0; i < times; i++) kernel->score(&a);
  return kernel->key_block * HEADS * INDEX_DIM;
}

static int64_t work(const mla_kernel_table *table, const char *kernel, int is_bf16, int times) {
  int format = is_bf16 ? MLA_FORMAT_BFLOAT16 : MLA_FORMAT_FLOAT32;
  if (strcmp(kernel, "attention") == 0) return attend(is_bf16 ? &table->bf16 : &table->fp32, format, times);
  if (strcmp(kernel, "rows") == 0) return attend_rows(is_bf16 ? &table->bf16_rows : &table->fp32_rows, format, times);
  if (strcmp(kernel, "index") == 0) return index_keys(is_bf16 ? &table->bf16_index : &table->fp32_index, times);
  return project(is_bf16 ? &table->bf16_projection : &table->fp32_projection, format, times);
}

int main(int argc, char **argv) {
  if (argc != 5) return 2;
  mla_kernel_table table;
  for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
    tables[i].fill(&table);
    if (strcmp(tables[i].name, argv[1]) == 0) break;
  }
  printf("%" PRId64 "\n", work(&table, argv[2], strcmp(argv[3], "bf16") == 0, atoi(argv[4])));
  return 0;
}
