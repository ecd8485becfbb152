// A plugin of qemu-aarch64 that says how often a program carries out which instructions: for
// each block of them "ADDRESS INSTRUCTIONS TIMES", to standard error. Declared here is what it
// uses of QEMU's interface for plugins, version 1.
#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define EXPORTED __attribute__((visibility("default")))

typedef uint64_t plugin_id;
struct translated;

extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct translated *));
extern void qemu_plugin_register_atexit_cb(plugin_id, void (*)(plugin_id, void *), void *);
extern size_t qemu_plugin_tb_n_insns(const struct translated *);
extern uint64_t qemu_plugin_tb_vaddr(const struct translated *);
enum { ADD_U64 = 0 };
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct translated *, int, void *, uint64_t);

EXPORTED int qemu_plugin_version = 1;

struct block {
  uint64_t address, instructions, times;
  struct block *next;
};
static struct block *blocks;

// What is translated anew is another block of the same address.
static void count(plugin_id id, struct translated *translated) {
  (void)id;
  struct block *block = malloc(sizeof *block);
  if (!block) abort();
  *block = (struct block){qemu_plugin_tb_vaddr(translated), qemu_plugin_tb_n_insns(translated), 0, blocks};
  blocks = block;
  qemu_plugin_register_vcpu_tb_exec_inline(translated, ADD_U64, &block->times, 1);
}

static void report(plugin_id id, void *data) {
  (void)id, (void)data;
  for (const struct block *block = blocks; block; block = block->next)
    fprintf(stderr, "%" PRIx64 " %" PRIu64 " %" PRIu64 "\n", block->address, block->instructions, block->times);
}

EXPORTED int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv) {
  (void)info, (void)argc, (void)argv;
  qemu_plugin_register_vcpu_tb_trans_cb(id, count);
  qemu_plugin_register_atexit_cb(id, report, NULL);
  return 0;
}
