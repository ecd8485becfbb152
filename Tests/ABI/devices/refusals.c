/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "call.h"

typedef mla_tensor *(*choice)(call *c);
static mla_tensor *q_of(call *c) { return &c->q; }
static mla_tensor *k_of(call *c) { return &c->k; }
static mla_tensor *v_of(call *c) { return &c->v; }
static mla_tensor *out_of(call *c) { return &c->out; }
static mla_tensor *lse_of(call *c) { return &c->lse; }

static int elsewhere(mla_backend *backend, choice choose, const char *name, int32_t type,
                     int32_t id, const char *rule) {
  char text[80];
  call fresh = call_of(TOKENS), chunk = call_of(KEYS);
  choose(&fresh)->device_type = choose(&chunk)->device_type = type;
  choose(&fresh)->device_id = choose(&chunk)->device_id = id;
  snprintf(text, sizeof(text), "%s.%s", name, rule);
  return refused(run_new_tokens(backend, &fresh), MLA_ERROR_INVALID_ARGUMENT, text) &&
         refused(run_chunk(backend, &chunk), MLA_ERROR_INVALID_ARGUMENT, text);
}

static void two_devices(mla_backend *backend) {
  static const struct {
    choice choose;
    const char *name;
  } tensors[] = {{q_of, "q"}, {k_of, "k"}, {v_of, "v"}, {out_of, "out"}, {lse_of, "lse"}};
  size_t i;
  for (i = 0; i < sizeof(tensors) / sizeof(*tensors); ++i) {
    const choice choose = tensors[i].choose;
    const char *const name = tensors[i].name;
    report(name, elsewhere(backend, choose, name, MLA_DEVICE_CPU, 0,
                           "device_type = 1: must be 2 (CUDA)") &&
                     elsewhere(backend, choose, name, MLA_DEVICE_CUDA, 0,
                               "device_id = 0: must be 1") &&
                     elsewhere(backend, choose, name, MLA_DEVICE_ROCM, 1, "device_type = 10: ") &&
                     elsewhere(backend, choose, name, MLA_DEVICE_CUDA_HOST, 1,
                               "device_type = 3: ") &&
                     elsewhere(backend, choose, name, INT32_MIN, 1, "device_type = -2147483648: "));
  }
}

static void what_is_refused(mla_backend *backend) {
  const mla_status invalid = MLA_ERROR_INVALID_ARGUMENT;
  const mla_prefill_metadata odd =
      metadata_of((const int32_t *)(void *)((char *)device_memory + 2));
  call c = call_of(TOKENS);
  c.out.data = (char *)c.q.data + 2 * QK_DIM;
  report("out in q", refused(run_new_tokens(backend, &c), invalid, "out.data"));
  c = call_of(TOKENS);
  c.lse.data = c.out.data;
  report("lse in out", refused(run_new_tokens(backend, &c), invalid, "lse.data"));
  c = call_of(TOKENS);
  c.workspace = c.v.data;
  report("workspace in v", refused(run_new_tokens(backend, &c), invalid, "workspace"));
  c = call_of(TOKENS);
  c.k.data = (char *)c.k.data + 1;
  report("k unaligned", refused(run_new_tokens(backend, &c), invalid, "k.data"));
  c.k.data = NULL;
  report("k at NULL", refused(run_new_tokens(backend, &c), invalid, "k.data"));
  c = call_of(TOKENS);
  c.out.strides[0] = 1;
  report("out on itself", refused(run_new_tokens(backend, &c), invalid, "out.strides"));
  c = call_of(KEYS);
  c.keys = (const int32_t *)(void *)((char *)device_memory + 3);
  report("offsets unaligned", refused(run_chunk(backend, &c), invalid, "device_cu_seq_lens"));
  c = call_of(KEYS);
  c.queries = (const int32_t *)(void *)((char *)device_memory + 1);
  report("queries unaligned", refused(run_chunk(backend, &c), invalid, "device_query_start_loc"));
  report("metadata unaligned", refused(mla_prepare_metadata(backend, &odd), invalid,
                                       "metadata.device_query_start_loc"));
}

static void move_to_cpu(call *c) {
  mla_tensor *const tensors[] = {&c->q, &c->k, &c->v, &c->out, &c->lse};
  size_t i;
  for (i = 0; i < 5; ++i) {
    tensors[i]->device_type = MLA_DEVICE_CPU;
    tensors[i]->device_id = 0;
  }
  c->stream = NULL;
  c->queries = c->keys = NULL;
}

/** Of the registered backend, too, which does not touch memory either. */
static void objects_of_the_cpu(const char *name) {
  const mla_backend_config config = config_on(MLA_DEVICE_CPU, 0);
  const mla_status invalid = MLA_ERROR_INVALID_ARGUMENT;
  const mla_prefill_metadata metadata = metadata_of(NULL), copied = metadata_of(call_of(1).queries);
  mla_backend *backend = NULL;
  call c = call_of(TOKENS);
  mla_backend_create(name, &config, &backend);
  report(name, refused(mla_prepare_metadata(backend, &copied), invalid,
                       "metadata.device_query_start_loc") &&
                   mla_prepare_metadata(backend, &metadata) == MLA_OK);
  report("tensors of a device", refused(run_new_tokens(backend, &c),
                                        MLA_ERROR_UNSUPPORTED_HARDWARE, "q.device_type = 2: this call runs on"));
  move_to_cpu(&c);
  c.v.device_type = MLA_DEVICE_CUDA;
  report("one of them", refused(run_new_tokens(backend, &c), MLA_ERROR_UNSUPPORTED_HARDWARE,
                                "v.device_type = 2: "));
  move_to_cpu(&c);
  c.out.device_id = 1;
  report("a second CPU", refused(run_new_tokens(backend, &c), invalid, "out.device_id = 1: "));
  c = call_of(TOKENS);
  move_to_cpu(&c);
  c.stream = device_memory;
  report("a stream", refused(run_new_tokens(backend, &c), invalid, "stream"));
  c = call_of(KEYS);
  move_to_cpu(&c);
  c.keys = call_of(1).keys;
  report("copies on a device", refused(run_chunk(backend, &c), invalid, "device_cu_seq_lens"));
  c.keys = NULL;
  c.queries = call_of(1).queries;
  report("of queries", refused(run_chunk(backend, &c), invalid, "device_query_start_loc"));
  mla_backend_destroy(backend);
}

static void layers(void) {
  mla_layer_config config = MLA_LAYER_CONFIG_INIT;
  mla_tensor weights = view_at(0, (int64_t)HEADS * (16 + V_DIM), 32, 1);
  mla_layer *layer = NULL;
  weights.ndim = 2;
  weights.strides[0] = 32;
  weights.strides[1] = 1;
  config.num_heads = HEADS;
  config.scale = 0.5;
  config.kv_lora_rank = 32;
  config.qk_nope_head_dim = 16;
  config.qk_rope_head_dim = 8;
  config.v_head_dim = V_DIM;
  config.kv_b_proj = &weights;
  config.backend = "RECORDER";
  report("a layer's weights", refused(mla_layer_create(&config, &layer),
                                      MLA_ERROR_UNSUPPORTED_HARDWARE, "config.kv_b_proj.device_type"));
  weights.device_type = MLA_DEVICE_CPU;
  weights.device_id = 0;
  config.device_type = MLA_DEVICE_ROCM;
  report("a layer", refused(mla_layer_create(&config, &layer), MLA_ERROR_UNSUPPORTED_HARDWARE,
                            "config.device_type = 10: layers do not run on ROCm"));
}

void refusals(mla_backend *backend) {
  const int runs = mine.runs;
  two_devices(backend);
  what_is_refused(backend);
  objects_of_the_cpu("RECORDER");
  objects_of_the_cpu("FLASH_ATTN");
  layers();
  report("nothing of it was run", mine.runs == runs);
}
