#define _GNU_SOURCE
#include "include/software_amx.h"

#include <cpuid.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "core_events.h"
#include "tile_state.h"

static _Thread_local tile_state thread_tiles;
static _Thread_local software_amx_counters thread_counters;
static struct sigaction previous_action;
enum { NOT_TRIED = -2 };
static int installed = NOT_TRIED;

// One decoded instruction of the VEX 0F38 map.
typedef struct vex_instruction {
  uint8_t opcode;
  uint8_t prefix;  // 0: none, 1: 66, 2: F3, 3: F2
  uint8_t mod, reg, rm, vvvv;
  bool has_sib;
  uint64_t address;  // base + displacement; with sibmem the index is not added
  int64_t stride;    // index << scale
  int length;
} vex_instruction;

static uint64_t general_register(const ucontext_t *context, int number) {
  static const int slots[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  return (uint64_t)context->uc_mcontext.gregs[slots[number]];
}

static int64_t displacement(const uint8_t *code, int bytes) {
  if (bytes == 0) return 0;
  if (bytes == 1) return (int8_t)code[0];
  int32_t value;
  memcpy(&value, code, sizeof value);
  return value;
}

// Reads SIB and displacement; `x` and `b` are the register extension bits.
static void decode_memory(const ucontext_t *context, const uint8_t *start, const uint8_t *code, int x, int b,
                          vex_instruction *out) {
  bool has_base = true, rip_relative = false;
  int base = out->rm | b << 3;
  out->has_sib = out->rm == 4;
  if (out->has_sib) {
    const uint8_t sib = *code++;
    const int index = ((sib >> 3) & 7) | x << 3;
    base = (sib & 7) | b << 3;
    has_base = !(out->mod == 0 && (sib & 7) == 5);
    if (index != 4) out->stride = (int64_t)(general_register(context, index) << (sib >> 6));
  } else if (out->mod == 0 && out->rm == 5) {
    has_base = false;
    rip_relative = true;
  }
  const int bytes = out->mod == 1 ? 1 : (out->mod == 2 || !has_base) ? 4 : 0;
  out->address = (uint64_t)displacement(code, bytes);
  code += bytes;
  out->length = (int)(code - start);
  if (has_base) out->address += general_register(context, base);
  if (rip_relative) out->address += (uint64_t)code;
}

static bool decode(const ucontext_t *context, const uint8_t *code, vex_instruction *out) {
  memset(out, 0, sizeof *out);
  if (code[0] != 0xc4 || (code[1] & 0x1f) != 2) return false;
  if ((code[2] & 0x84) != 0) return false;  // W and L are 0
  out->opcode = code[3];
  if (out->opcode != 0x49 && out->opcode != 0x4b && out->opcode != 0x5c) return false;
  out->prefix = code[2] & 3;
  out->vvvv = (uint8_t)(~(code[2] >> 3) & 15);
  out->mod = code[4] >> 6;
  out->reg = (uint8_t)(((code[4] >> 3) & 7) | (code[1] & 0x80 ? 0 : 8));
  out->rm = code[4] & 7;
  out->length = 5;
  const int x = code[1] & 0x40 ? 0 : 1, b = code[1] & 0x20 ? 0 : 1;
  if (out->mod != 3) {
    decode_memory(context, code, code + 5, x, b, out);
  } else {
    out->rm = (uint8_t)(out->rm | b << 3);
  }
  return true;
}

static bool count(bool done, uint64_t *counter) {
  *counter += done;
  return done;
}

static bool run_configuration(const vex_instruction *in) {
  tile_state *tiles = &thread_tiles;
  if (in->vvvv != 0) return false;
  if (in->mod == 3) {
    if (in->prefix == 0 && in->reg == 0 && in->rm == 0)
      return count(tile_release(tiles), &thread_counters.releases);
    if (in->prefix == 3 && in->rm == 0) {
      core_event_zero(in->reg);
      return count(tile_zero(tiles, in->reg), &thread_counters.zeros);
    }
    return false;
  }
  // A plain operand with an index register: the model has the index apart.
  void *memory = (void *)(in->address + (uint64_t)in->stride);
  if (in->prefix == 0 && in->reg == 0) return count(tile_configure(tiles, memory), &thread_counters.configures);
  if (in->prefix == 1 && in->reg == 0) return tile_store_config(tiles, memory);
  return false;
}

static bool run_transfer(const vex_instruction *in) {
  tile_state *tiles = &thread_tiles;
  if (in->mod == 3 || !in->has_sib || in->vvvv != 0) return false;
  uint8_t *memory = (uint8_t *)in->address;
  if (in->prefix == 2) {
    core_event_store(in->reg);
    return count(tile_store(tiles, in->reg, memory, in->stride), &thread_counters.stores);
  }
  if (in->prefix == 0) return false;
  const bool streamed = in->prefix == 1;
  core_event_load(in->reg, streamed);
  return count(tile_load(tiles, in->reg, memory, in->stride),
               streamed ? &thread_counters.streaming_loads : &thread_counters.loads);
}

static bool run(const vex_instruction *in) {
  if (in->opcode == 0x49) return run_configuration(in);
  if (in->opcode == 0x4b) return run_transfer(in);
  if (in->prefix != 2 || in->mod != 3) return false;
  core_event_product(in->reg, in->rm, in->vvvv);
  return count(tile_dot_bf16(&thread_tiles, in->reg, in->rm, in->vvvv), &thread_counters.products);
}

static void pass_on(int number, siginfo_t *info, void *context) {
  if (previous_action.sa_flags & SA_SIGINFO) {
    previous_action.sa_sigaction(number, info, context);
  } else if (previous_action.sa_handler == SIG_DFL || previous_action.sa_handler == SIG_IGN) {
    signal(SIGILL, SIG_DFL);  // the instruction traps again, for good
  } else {
    previous_action.sa_handler(number);
  }
}

static void on_illegal_instruction(int number, siginfo_t *info, void *raw_context) {
  ucontext_t *context = raw_context;
  greg_t *rip = &context->uc_mcontext.gregs[REG_RIP];
  vex_instruction instruction;
  bool any = false;
  // Neighbours are carried out in the same trap: a signal costs more than a product.
  while (decode(context, (const uint8_t *)*rip, &instruction) && run(&instruction)) {
    *rip += instruction.length;
    any = true;
  }
  thread_counters.traps += any;
  if (!any) pass_on(number, info, raw_context);
}

static bool cpu_has_amx_bf16(void) {
  uint32_t a, b, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & (1u << 22)) && (d & (1u << 24));
}

// What a module compiled for Sapphire Rapids may use besides tiles, AVX512-FP16 left out.
static bool cpu_has_companions(void) {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2") &&
         __builtin_cpu_supports("avx512bf16");
}

int software_amx_install(void) {
  if (installed != NOT_TRIED) return installed;
  installed = SOFTWARE_AMX_UNAVAILABLE;
  const long request_permission = 0x1023, tile_data = 18;
  if (!cpu_has_companions()) return installed;
  if (cpu_has_amx_bf16() && syscall(SYS_arch_prctl, request_permission, tile_data) == 0) {
    installed = SOFTWARE_AMX_HARDWARE;
    return installed;
  }
  // An AMX CPU without the permission raises #NM, not #UD: nothing to serve there.
  if (cpu_has_amx_bf16()) return installed;
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = on_illegal_instruction;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  if (sigaction(SIGILL, &action, &previous_action) == 0) installed = SOFTWARE_AMX_ACTIVE;
  return installed;
}

software_amx_counters software_amx_read_counters(void) { return thread_counters; }

void software_amx_reset_counters(void) { memset(&thread_counters, 0, sizeof thread_counters); }
