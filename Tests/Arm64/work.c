// A kernel's work, a given number of times, for its instructions to be counted. Prints how many
// products a call adds up.
//
//   work TABLE attention|projection fp32|bf16 TIMES
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mla_kernel_abi.h"
#include "tables.h"

enum { KEYS = 1024, RANK = 512, WEIGHTS = 256, TOKENS = 128 };

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

int main(int argc, char **argv) {
  if (argc != 5) return 2;
  mla_kernel_table table;
  int is_bf16 = strcmp(argv[3], "bf16") == 0, times = atoi(argv[4]);
  for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
    tables[i].fill(&table);
    if (strcmp(tables[i].name, argv[1]) == 0) break;
  }
  int format = is_bf16 ? MLA_FORMAT_BFLOAT16 : MLA_FORMAT_FLOAT32;
  int64_t products = strcmp(argv[2], "attention") == 0
                         ? attend(is_bf16 ? &table.bf16 : &table.fp32, format, times)
                         : project(is_bf16 ? &table.bf16_projection : &table.fp32_projection, format, times);
  printf("%" PRId64 "\n", products);
  return 0;
}
