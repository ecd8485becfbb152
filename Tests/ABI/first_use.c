/*
 * fork() while another thread of the process makes its first use of the library, for
 * each kind of call and at a moment that differs each time. The child, whose two
 * threads then make every call themselves, must not wait for its parent's thread, whose
 * stack is as small as the header allows.
 *
 *   first_use [FORKS]
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "mla_prefill.h"

enum { tokens = 70, heads = 2, nope = 32, rope = 16, v_dim = 32, rank = 64, block_size = 16 };
enum { blocks = 5, wide = nope + rope, slots = blocks * block_size };

static float ones[slots * heads * wide];
static float weights[heads * (nope + v_dim) * rank];
static const int32_t offsets[] = {0, 30, tokens};

/** What a thread's calls write. */
typedef struct results {
  float out[tokens * heads * v_dim], lse[heads * tokens], cache[slots * (rank + rope)];
} results;

static mla_tensor view(void *data, int64_t a, int64_t b, int64_t c) {
  mla_tensor tensor = MLA_TENSOR_INIT;
  tensor.dtype = MLA_DTYPE_FLOAT32;
  tensor.data = data;
  tensor.ndim = c > 0 ? 3 : 2;
  tensor.shape[0] = a;
  tensor.shape[1] = b;
  tensor.shape[2] = c;
  tensor.strides[0] = c > 0 ? b * c : b;
  tensor.strides[1] = c > 0 ? c : 1;
  tensor.strides[2] = 1;
  return tensor;
}

static void drop(void *context, int32_t level, const char *message) {
  (void)context, (void)level, (void)message;
}
static void in_turn(void *context, int64_t count, mla_parallel_task task, void *task_context) {
  (void)context;
  for (int64_t i = 0; i < count; ++i) task(task_context, i);
}
static void ignore(void *context, const char *reason) { (void)context, (void)reason; }

/* Each call, with what has to come before it: 0 if it went well. */

static int versions(results *r) { return (void)r, mla_version()[0] == '\0'; }
static int cpu_info(results *r) {
  mla_cpu_info info = MLA_CPU_INFO_INIT;
  return (void)r, mla_get_cpu_info(&info) || info.num_processors < 1;
}
static int summary(results *r) { return (void)r, mla_cpu_summary()[0] == '\0'; }
static int threads(results *r) {
  return (void)r, mla_set_num_threads(0) || mla_get_num_threads() < 1 || mla_set_num_threads(3);
}
static int trim(results *r) { return (void)r, mla_trim(NULL) != MLA_OK; }
static int log_callback(results *r) {
  mla_log_callback set;
  return (void)r, mla_set_log_callback(drop, NULL) || mla_get_log_callback(&set, NULL) || set != drop;
}
static int parallel_for(results *r) {
  return (void)r, mla_set_parallel_for(in_turn, NULL) || mla_set_parallel_for(NULL, NULL);
}
static int wrong_name(results *r) {
  const char *path;
  return (void)r, mla_backend_path("nobody", &path) != MLA_ERROR_NOT_REGISTERED;
}
static int registration(results *r) {
  mla_backend_registration request = MLA_BACKEND_REGISTRATION_INIT;
  int32_t is_overridden;
  const char *path;
  (void)r;
  request.class_path = "module.Class";
  return mla_override_backend("CUSTOM", &request) || mla_backend_path("CUSTOM", &path) ||
         mla_backend_is_overridden("CUSTOM", &is_overridden);
}
static int selector(results *r) {
  mla_selector_config config = MLA_SELECTOR_CONFIG_INIT;
  const char *name;
  (void)r;
  return mla_select_backend(&config, &name) ||
         mla_validate_configuration("FLASHINFER", &config, ignore, NULL);
}
static int list(results *r) {
  mla_selector_config config = MLA_SELECTOR_CONFIG_INIT;
  mla_backend_list *rows;
  mla_backend_info info = MLA_BACKEND_INFO_INIT;
  int failed = mla_backend_list_create(&config, &rows) != MLA_OK;
  (void)r;
  if (failed) return failed;
  failed = mla_backend_list_get(rows, 2, &info) != MLA_OK;
  mla_backend_list_destroy(rows);
  return failed;
}
static int context_plan(results *r) {
  const int32_t lens[] = {700, 33};
  mla_context_plan_args args = MLA_CONTEXT_PLAN_ARGS_INIT;
  mla_context_plan *plan;
  (void)r;
  args.num_requests = 2;
  args.context_lens = lens;
  args.query_start_loc = offsets;
  args.row_budget = 256;
  args.block_size = 16;
  if (mla_plan_context_chunks(&args, &plan) != MLA_OK) return 1;
  mla_context_plan_destroy(plan);
  return 0;
}
static int runs(const char *name, results *r) {
  const mla_tensor q = view(ones, tokens, heads, wide), v = view(ones, tokens, heads, v_dim);
  const mla_tensor out = view(r->out, tokens, heads, v_dim), lse = view(r->lse, heads, tokens, 0);
  mla_backend_config config = MLA_BACKEND_CONFIG_INIT;
  mla_prefill_metadata batch = MLA_PREFILL_METADATA_INIT;
  mla_context_chunk chunk = MLA_CONTEXT_CHUNK_INIT;
  mla_new_tokens_args new_tokens = MLA_NEW_TOKENS_ARGS_INIT;
  mla_context_chunk_args context = MLA_CONTEXT_CHUNK_ARGS_INIT;
  mla_backend *backend = NULL;
  int64_t bytes;
  int failed;
  config.num_heads = heads;
  config.scale = 0.1;
  config.qk_nope_head_dim = nope;
  config.qk_rope_head_dim = rope;
  config.v_head_dim = v_dim;
  chunk.num_requests = batch.num_requests = 2;
  chunk.query_start_loc = chunk.cu_seq_lens = batch.query_start_loc = offsets;
  context.chunk = &chunk;
  context.q = context.k = new_tokens.q = new_tokens.k = &q;
  context.v = new_tokens.v = &v;
  context.out = new_tokens.out = &out;
  context.lse = new_tokens.lse = &lse;
  failed = mla_backend_create(name, &config, &backend) || mla_prepare_metadata(backend, &batch) ||
           mla_workspace_size(backend, &bytes) ||
           mla_run_prefill_new_tokens(backend, &new_tokens) ||
           mla_run_prefill_context_chunk(backend, &context) || r->out[0] != 1;
  mla_backend_destroy(backend);
  return failed;
}
static int tiles(results *r) { return runs("FLASH_ATTN", r); }
static int splits(results *r) { return runs("FLASHINFER", r); }
static int warm(results *r) { return runs("TOKENSPEED_MLA", r); }
static int merge(results *r) {
  const mla_tensor side = view(ones, tokens, heads, v_dim), lse = view(ones, heads, tokens, 0);
  const mla_tensor out = view(r->out, tokens, heads, v_dim);
  mla_merge_args args = MLA_MERGE_ARGS_INIT;
  args.output = &out;
  args.prefix_output = args.suffix_output = &side;
  args.prefix_lse = args.suffix_lse = &lse;
  return mla_merge_attn_states(&args) != MLA_OK;
}
static int cache(results *r) {
  const mla_tensor latents = view(ones, 3, rank, 0), k_pe = view(ones, 3, rope, 0);
  const mla_tensor pages = view(r->cache, blocks, block_size, rank + rope);
  const int64_t places[] = {7, 3, 70};
  mla_concat_and_cache_args args = MLA_CONCAT_AND_CACHE_ARGS_INIT;
  args.kv_c_normed = &latents;
  args.k_pe = &k_pe;
  args.slot_mapping = places;
  args.num_slots = 3;
  args.kv_cache = &pages;
  return mla_concat_and_cache_mla(&args) != MLA_OK;
}
static int layer(results *r) {
  const mla_tensor kv_b_proj = view(weights, heads * (nope + v_dim), rank, 0);
  const mla_tensor q = view(ones, tokens, heads, wide), latents = view(ones, tokens, rank, 0);
  const mla_tensor k_pe = view(ones, tokens, rope, 0);
  const mla_tensor pages = view(r->cache, blocks, block_size, rank + rope);
  const mla_tensor out = view(r->out, tokens, heads, v_dim);
  const int32_t context_lens[] = {40, 0}, table[2 * blocks] = {4, 0, 2};
  mla_layer_config config = MLA_LAYER_CONFIG_INIT;
  mla_layer_forward_args args = MLA_LAYER_FORWARD_ARGS_INIT;
  mla_layer *made = NULL;
  int failed;
  config.num_heads = heads;
  config.scale = 0.1;
  config.kv_lora_rank = rank;
  config.qk_nope_head_dim = nope;
  config.qk_rope_head_dim = rope;
  config.v_head_dim = v_dim;
  config.kv_b_proj = &kv_b_proj;
  args.num_requests = 2;
  args.query_start_loc = offsets;
  args.context_lens = context_lens;
  args.q = &q;
  args.kv_c_normed = &latents;
  args.k_pe = &k_pe;
  args.kv_cache = &pages;
  args.block_table = table;
  args.block_table_stride = args.max_blocks = blocks;
  args.out = &out;
  failed = mla_layer_create(&config, &made) || mla_layer_forward(made, &args);
  mla_layer_destroy(made);
  return failed;
}

typedef int (*use)(results *);
static const use uses[] = {versions, cpu_info,  summary, threads, trim, log_callback,
                           parallel_for, wrong_name, registration, selector, list, context_plan, tiles,
                           splits, warm, merge, cache, layer};
enum { kinds = sizeof(uses) / sizeof(uses[0]) };

static use first;
static volatile int has_begun;

static void *use_first(void *r) {
  has_begun = 1;
  return (void *)(size_t)first(r);
}
static void *use_all(void *r) {
  size_t failed = 0;
  for (int i = 0; i < kinds; ++i) failed += uses[i](r) != 0;
  return (void *)failed;
}

static int64_t nanoseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/** All calls on two threads at once; 0 if they went well. */
static int child_of_first_use(void) {
  static results mine, theirs;
  pthread_t other;
  void *failed;
  alarm(10);
  if (pthread_create(&other, NULL, use_all, &theirs) != 0) return 3;
  if (use_all(&mine) != NULL) return 4;
  return pthread_join(other, &failed) != 0 || failed != NULL ? 5 : 0;
}

/** A process that has not used the library: how its forked child ended. */
static int fork_after(int64_t delay) {
  static results theirs;
  pthread_attr_t small;
  pthread_t thread;
  void *failed;
  int status = -1;
  pid_t child;
  int64_t begin;
  alarm(60);
  if (pthread_attr_init(&small) != 0 || pthread_attr_setstacksize(&small, 128 << 10) != 0) return 6;
  if (pthread_create(&thread, &small, use_first, &theirs) != 0) return 6;
  while (!has_begun) {
  }
  for (begin = nanoseconds(); nanoseconds() - begin < delay;) {
  }
  child = fork();
  if (child == 0) _exit(child_of_first_use());
  if (child < 0 || waitpid(child, &status, 0) != child) return 7;
  if (pthread_join(thread, &failed) != 0 || failed != NULL) return 8;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 9;
}

int main(int argc, char **argv) {
  const int forks = argc > 1 ? atoi(argv[1]) : 40 * kinds;
  unsigned random = 1;
  int worst = 0, hung = 0, failed = 0;
  for (size_t i = 0; i < sizeof(ones) / sizeof(ones[0]); ++i) ones[i] = 1;
  for (int i = 0; i < forks; ++i) {
    int status = -1;
    pid_t process;
    random = random * 1664525U + 1013904223U;
    first = uses[i % kinds];
    process = fork();
    /* Most first uses take less than a millisecond. */
    if (process == 0) _exit(fork_after((int64_t)(random >> 12) % (i % 3 == 0 ? 2000000 : 300000)));
    if (process < 0 || waitpid(process, &status, 0) != process) return 2;
    if (status == 0) continue;
    worst = WIFEXITED(status) ? WEXITSTATUS(status) : 9;
    if (worst == 9) ++hung; else ++failed;
    printf("   use %d, then fork: %d\n", i % kinds, worst);
    if (hung + failed > 2) break;
  }
  printf("%s first_use: %d forks during one, %d children hang, %d fail\n",
         hung + failed > 0 ? "not ok" : "ok", forks, hung, failed);
  return hung + failed > 0;
}
