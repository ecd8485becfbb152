// A plugin of qemu-aarch64 that counts the instructions which a program carries out, those
// that multiply and add among them. Declared here is what it uses of QEMU's interface for
// plugins, version 1.
#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define EXPORTED __attribute__((visibility("default")))

typedef uint64_t plugin_id;
struct block;
struct instruction;

extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct block *));
extern void qemu_plugin_register_atexit_cb(plugin_id, void (*)(plugin_id, void *), void *);
extern size_t qemu_plugin_tb_n_insns(const struct block *);
extern struct instruction *qemu_plugin_tb_get_insn(const struct block *, size_t);
extern const void *qemu_plugin_insn_data(const struct instruction *);
enum { ADD_U64 = 0 };
extern void qemu_plugin_register_vcpu_insn_exec_inline(struct instruction *, int, void *, uint64_t);

EXPORTED int qemu_plugin_version = 1;

static uint64_t all, multiplications;

// fmla by vector and by element of four fp32, bfmmla.
static int multiplies(uint32_t code) {
  return (code & 0xffe0fc00) == 0x4e20cc00 || (code & 0xffc0f400) == 0x4f801000 ||
         (code & 0xffe0fc00) == 0x6e40ec00;
}

static void count(plugin_id id, struct block *block) {
  (void)id;
  for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); i++) {
    struct instruction *instruction = qemu_plugin_tb_get_insn(block, i);
    uint32_t code;
    memcpy(&code, qemu_plugin_insn_data(instruction), sizeof code);
    qemu_plugin_register_vcpu_insn_exec_inline(instruction, ADD_U64, &all, 1);
    if (multiplies(code))
      qemu_plugin_register_vcpu_insn_exec_inline(instruction, ADD_U64, &multiplications, 1);
  }
}

static void report(plugin_id id, void *data) {
  (void)id, (void)data;
  fprintf(stderr, "%" PRIu64 " %" PRIu64 "\n", all, multiplications);
}

EXPORTED int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv) {
  (void)info, (void)argc, (void)argv;
  qemu_plugin_register_vcpu_tb_trans_cb(id, count);
  qemu_plugin_register_atexit_cb(id, report, NULL);
  return 0;
}
