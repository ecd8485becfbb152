/*
 * Backend objects for devices: what they are handed, and what is refused. Memory of the
 * device is addresses that nobody can read or write.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
/* MAP_ANONYMOUS. */
#define _DEFAULT_SOURCE
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "devices/call.h"

static int same(const mla_tensor *a, const mla_tensor *b) { return !memcmp(a, b, sizeof(*a)); }

static int arrived(const call *c) {
  return same(&mine.q, &c->q) && same(&mine.k, &c->k) && same(&mine.v, &c->v) &&
         same(&mine.out, &c->out) && mine.has_lse && same(&mine.lse, &c->lse) &&
         mine.workspace == c->workspace && mine.workspace_size == 4096 &&
         mine.stream == c->stream;
}

static int creation_refused(const char *name, int32_t type, int32_t id, mla_status expected,
                            const char *text) {
  const mla_backend_config config = config_on(type, id);
  mla_backend *backend = NULL;
  const mla_status status = mla_backend_create(name, &config, &backend);
  return refused(status, expected, text) && backend == NULL;
}

static void what_is_made(void) {
  static const char *const of_cuda[] = {"FLASH_ATTN", "FLASHINFER", "TRTLLM_RAGGED",
                                        "TOKENSPEED_MLA"};
  static const char *const of_others[] = {"ROCM_AITER_FA", "CPU", "ZEN_CPU"};
  static const int32_t types[] = {MLA_DEVICE_CUDA_HOST, MLA_DEVICE_ROCM_HOST, 77, -1, INT32_MIN};
  const mla_status invalid = MLA_ERROR_INVALID_ARGUMENT, hardware = MLA_ERROR_UNSUPPORTED_HARDWARE;
  const mla_backend_config on_cpu = config_on(0, 0),
                           beyond = config_on(MLA_DEVICE_CUDA, 1 << 20);
  mla_backend *backend = NULL;
  size_t i;
  // Of an id that no host has: the driver may be there or not.
  for (i = 0; i < sizeof(of_cuda) / sizeof(*of_cuda); ++i) {
    report(of_cuda[i], mla_backend_create(of_cuda[i], &beyond, &backend) != MLA_OK &&
                           backend == NULL && *mla_last_error_message());
  }
  for (i = 0; i < sizeof(of_others) / sizeof(*of_others); ++i) {
    report(of_others[i], creation_refused(of_others[i], MLA_DEVICE_CUDA, 0, hardware,
                                          "does not run on CUDA devices"));
  }
  for (i = 0; i < sizeof(types) / sizeof(*types); ++i) {
    report("a type of no device",
           creation_refused("RECORDER", types[i], 0, invalid, "config.device_type = "));
  }
  report("the CPU is one", creation_refused("RECORDER", MLA_DEVICE_CPU, 1, invalid,
                                            "config.device_id = 1: must be 0") &&
                               creation_refused("RECORDER", 0, 1, invalid, "config.device_id"));
  report("no device below 0",
         creation_refused("RECORDER", MLA_DEVICE_CUDA, -1, invalid, "config.device_id = -1"));
  report("nobody was asked", mine.asked == 0 && mine.created == 0);
  report("the backend is asked", creation_refused("RECORDER", MLA_DEVICE_ROCM, 4, hardware,
                                                  "config.device_type = 10, device_id = 4: ") &&
                                     mine.device_type == MLA_DEVICE_ROCM && mine.device_id == 4);
  report("and may say why", creation_refused("RECORDER", MLA_DEVICE_CUDA, 7, hardware,
                                             "device 7 is out of order"));
  report("none was made", mine.created == 0);
  mine.asked = 0;
  report("for the CPU nobody is asked",
         mla_backend_create("RECORDER", &on_cpu, &backend) == MLA_OK && mine.asked == 0 &&
             mine.config.device_type == MLA_DEVICE_CPU && mine.config.device_id == 0);
  mla_backend_destroy(backend);
}

/** One whose header had no devices, and one that does not know of them. */
static void older_backends(void) {
  mla_backend_vtable table = recorder_table(&mine);
  mla_backend_registration registration = MLA_BACKEND_REGISTRATION_INIT;
  const mla_status hardware = MLA_ERROR_UNSUPPORTED_HARDWARE;
  registration.vtable = &table;
  table.struct_size = offsetof(mla_backend_vtable, supports_device);
  mla_register_backend("OLDER", &registration);
  table.struct_size = sizeof(table);
  table.supports_device = NULL;
  mla_register_backend("SILENT", &registration);
  report("a backend of an older header",
         creation_refused("OLDER", MLA_DEVICE_CUDA, 0, hardware, "backend OLDER does not run"));
  report("a backend that does not say",
         creation_refused("SILENT", MLA_DEVICE_CUDA, 0, hardware, "backend SILENT does not run"));
  mla_remove_backend("OLDER");
  mla_remove_backend("SILENT");
}

static void what_arrives(mla_backend *backend) {
  const float scale = 0.25F;
  const mla_prefill_metadata metadata = metadata_of(call_of(1).queries);
  call fresh = call_of(TOKENS), chunk = call_of(KEYS), empty = call_of(TOKENS);
  mla_new_tokens_args args = MLA_NEW_TOKENS_ARGS_INIT;
  report("create is told the device",
         mine.config.device_type == MLA_DEVICE_CUDA && mine.config.device_id == 1);
  report("metadata", mla_prepare_metadata(backend, &metadata) == MLA_OK &&
                         mine.metadata.device_query_start_loc == call_of(1).queries);
  report("a run of new tokens", run_new_tokens(backend, &fresh) == MLA_OK && arrived(&fresh));
  report("a run of a chunk", run_chunk(backend, &chunk) == MLA_OK && arrived(&chunk) &&
                                 mine.device_query_start_loc == chunk.queries &&
                                 mine.device_cu_seq_lens == chunk.keys);
  /* Rows of out and v in turn: a layout that is judged element by element. */
  fresh.v.strides[0] = fresh.out.strides[0] = (int64_t)2 * HEADS * V_DIM;
  fresh.out.data = (char *)fresh.v.data + 2 * HEADS * V_DIM;
  fresh.stream = NULL;
  report("tensors that interleave, the default stream",
         run_new_tokens(backend, &fresh) == MLA_OK && arrived(&fresh));
  empty.out.dtype = MLA_DTYPE_FLOAT8_E4M3FN;
  args.q = &empty.q;
  args.k = &empty.k;
  args.v = &empty.v;
  args.out = &empty.out;
  args.output_scale = &scale;
  mine.output_scale = 0;
  report("a quantized output, no workspace, no lse",
         mla_run_prefill_new_tokens(backend, &args) == MLA_OK && mine.output_scale >= scale &&
             same(&mine.out, &empty.out) && !mine.has_lse && mine.workspace == NULL);
}

/** Structs of an older header end where memory does, of a newer one have a tail of zeros: a
    backend sees those of the library. */
static void other_headers(mla_backend *backend) {
  const size_t size = offsetof(mla_prefill_metadata, device_query_start_loc);
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  char *const memory =
      mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  mla_prefill_metadata metadata = metadata_of(NULL);
  const call c = call_of(TOKENS);
  mla_new_tokens_args args = MLA_NEW_TOKENS_ARGS_INIT;
  mprotect(memory + page, page, PROT_NONE);
  metadata.struct_size = (uint32_t)size;
  memcpy(memory + page - size, &metadata, size);
  memset(&mine.metadata, 1, sizeof(mine.metadata));
  report("metadata of an older header",
         mla_prepare_metadata(backend, (const void *)(memory + page - size)) == MLA_OK &&
             mine.metadata.device_query_start_loc == NULL &&
             mine.metadata.struct_size == sizeof(mla_prefill_metadata));
  args.struct_size = sizeof(args) + 64;
  args.q = &c.q;
  args.k = &c.k;
  args.v = &c.v;
  args.out = &c.out;
  memset(memory, 0, page);
  memcpy(memory, &args, sizeof(args));
  report("a run's of a newer one",
         mla_run_prefill_new_tokens(backend, (const void *)memory) == MLA_OK &&
             mine.args_size == sizeof(args));
  munmap(memory, 2 * page);
}

int main(void) {
  const mla_backend_vtable table = recorder_table(&mine);
  const mla_backend_config config = config_on(MLA_DEVICE_CUDA, 1);
  mla_backend_registration registration = MLA_BACKEND_REGISTRATION_INIT;
  mla_backend *backend = NULL, *clone = NULL;
  const mla_prefill_metadata metadata = metadata_of(NULL);
  device_memory = mmap(NULL, 1 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  registration.vtable = &table;
  report("registered", device_memory != MAP_FAILED &&
                           mla_register_backend("RECORDER", &registration) == MLA_OK);
  what_is_made();
  older_backends();
  report("made", mla_backend_create("RECORDER", &config, &backend) == MLA_OK);
  what_arrives(backend);
  other_headers(backend);
  refusals(backend);
  report("a clone is for the same device",
         mla_backend_clone(backend, &clone) == MLA_OK && mine.config.device_id == 1 &&
             mla_prepare_metadata(clone, &metadata) == MLA_OK);
  mla_backend_destroy(backend);
  mla_backend_destroy(clone);
  return failures != 0;
}
