/*
 * dlopen, use, dlclose, again; on threads that end; fork handlers older than the library
 * that call it. Not linked with it.
 *
 *   unload LIBRARY
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mla_prefill.h"

#define TOKENS 200
#define HEADS 2
#define DIM 64

static float q[TOKENS * HEADS * DIM], k[TOKENS * HEADS * DIM], v[TOKENS * HEADS * DIM];
static float out_after_fork[TOKENS * HEADS * DIM];

/** A function of the library; ISO C has no cast from an object's address. */
static void find(void *library, const char *name, void *function) {
  void *address = dlsym(library, name);
  memcpy(function, &address, sizeof(address));
}

static mla_tensor view_of(float *data) {
  mla_tensor view = MLA_TENSOR_INIT;
  view.dtype = MLA_DTYPE_FLOAT32;
  view.data = data;
  view.ndim = 3;
  view.shape[0] = TOKENS;
  view.shape[1] = HEADS;
  view.shape[2] = DIM;
  view.strides[0] = HEADS * DIM;
  view.strides[1] = DIM;
  view.strides[2] = 1;
  return view;
}

static const char *run(void *library, float *out) {
  mla_status (*create)(const char *, const mla_backend_config *, mla_backend **);
  mla_status (*prepare)(mla_backend *, const mla_prefill_metadata *);
  mla_status (*new_tokens)(const mla_backend *, const mla_new_tokens_args *);
  void (*destroy)(mla_backend *);
  mla_status (*set_threads)(int32_t);
  const int32_t offsets[] = {0, 80, TOKENS};
  const mla_tensor views[] = {view_of(q), view_of(k), view_of(v), view_of(out)};
  mla_backend_config config = MLA_BACKEND_CONFIG_INIT;
  mla_prefill_metadata metadata = MLA_PREFILL_METADATA_INIT;
  mla_new_tokens_args args = MLA_NEW_TOKENS_ARGS_INIT;
  mla_backend *backend;
  find(library, "mla_backend_create", &create);
  find(library, "mla_prepare_metadata", &prepare);
  find(library, "mla_run_prefill_new_tokens", &new_tokens);
  find(library, "mla_backend_destroy", &destroy);
  find(library, "mla_set_num_threads", &set_threads);
  config.num_heads = HEADS;
  config.scale = 0.125;
  config.kv_lora_rank = 64;
  config.qk_nope_head_dim = 32;
  config.qk_rope_head_dim = 32;
  config.v_head_dim = DIM;
  metadata.num_requests = 2;
  metadata.query_start_loc = offsets;
  args.q = &views[0];
  args.k = &views[1];
  args.v = &views[2];
  args.out = &views[3];
  if (set_threads(3) != MLA_OK) return "mla_set_num_threads";
  if (create("FLASHINFER", &config, &backend) != MLA_OK) return "mla_backend_create";
  if (prepare(backend, &metadata) != MLA_OK) return "mla_prepare_metadata";
  if (new_tokens(backend, &args) != MLA_OK) return "mla_run_prefill_new_tokens";
  destroy(backend);
  return NULL;
}

/** One round on a thread of its own; what failed, or NULL. */
static void *use(void *path) {
  static float first[TOKENS * HEADS * DIM], out[TOKENS * HEADS * DIM];
  static int rounds;
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  const char *failed;
  if (!library) return dlerror();
  failed = run(library, rounds == 0 ? first : out);
  if (!failed && rounds > 0 && memcmp(first, out, sizeof(out)) != 0) failed = "other bits";
  ++rounds;
  if (dlclose(library) != 0 && !failed) failed = "dlclose";
  return (void *)(size_t)failed;
}

static mla_status (*trim)(int64_t *);

/** In its handlers fork() has stopped the other threads' calls, not its own thread's. */
static void call_in_handler(void) {
  if (trim != NULL) trim(NULL);
}

static const char *fork_with_handlers(const char *path) {
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  int status = -1;
  pid_t child;
  if (library == NULL) return dlerror();
  find(library, "mla_trim", &trim);
  alarm(20);
  child = fork();
  if (child == 0) {
    trim(NULL);
    _exit(run(library, out_after_fork) != NULL);
  }
  if (child < 0 || waitpid(child, &status, 0) != child) return "fork";
  if (status != 0) return "the child failed";
  alarm(0);
  return run(library, out_after_fork);
}

int main(int argc, char **argv) {
  const char *failed = NULL;
  unsigned state = 1;
  size_t i;
  int round;
  if (argc < 2 || pthread_atfork(call_in_handler, call_in_handler, call_in_handler) != 0) return 2;
  for (i = 0; i < sizeof(q) / sizeof(q[0]); ++i) {
    state = state * 1664525U + 1013904223U;
    q[i] = (float)(state >> 16) / 65536.0F - 0.5F;
    k[i] = (float)(state >> 8 & 0xFFFF) / 65536.0F - 0.5F;
    v[i] = (float)(state >> 12 & 0xFFFF) / 65536.0F - 0.5F;
  }
  for (round = 0; round < 6 && !failed; ++round) {
    pthread_t thread;
    void *result;
    if (round % 2 == 0) {
      result = use(argv[1]);
    } else if (pthread_create(&thread, NULL, use, argv[1]) != 0 ||
               pthread_join(thread, &result) != 0) {
      result = (void *)(size_t)"pthread_create";
    }
    failed = result;
  }
  printf("%s unload: dlopen, use, dlclose, thread exit%s%s\n", failed ? "not ok" : "ok",
         failed ? ": " : "", failed ? failed : "");
  if (failed) return 1;
  failed = fork_with_handlers(argv[1]);
  printf("%s unload: fork handlers that call the library%s%s\n", failed ? "not ok" : "ok",
         failed ? ": " : "", failed ? failed : "");
  return failed != NULL;
}
