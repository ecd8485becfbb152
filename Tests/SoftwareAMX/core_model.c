#define _GNU_SOURCE
#include "include/core_model.h"

#include <signal.h>
#include <string.h>
#include <ucontext.h>

#include "core_events.h"
#include "tile_state.h"

enum { WINDOW = 512, PER_CYCLE = 6, TRAP_FLAG = 0x100 };

// A unit is busy until `free`.
typedef struct core {
  core_model_result result;
  double retired[WINDOW];  // when each of the last instructions left the window
  uint64_t position;
  double entered, left;
  double tile_free, load_free, vector_free, transfer_free;
  double tile_ready[TILE_COUNT];
  _Bool active;
} core;

static _Thread_local core model;

static double later(double a, double b) { return a > b ? a : b; }

// When an instruction of so many parts may start.
static double enter(int parts) {
  const double room = model.retired[(model.position + (uint64_t)parts - 1) % WINDOW];
  model.entered = later(model.entered + (double)parts / PER_CYCLE, room);
  return model.entered;
}

static void leave(int parts, double completed) {
  model.left = later(model.left, completed);
  for (int i = 0; i < parts; i++) model.retired[model.position++ % WINDOW] = model.left;
  model.result.cycles = model.left;
}

static void plain(void) {
  model.result.others++;
  leave(1, enter(1) + 1);
}

static void vector(_Bool transfers) {
  double *unit = transfers ? &model.transfer_free : &model.vector_free;
  const double start = later(enter(1), *unit);
  *unit = start + (transfers || model.tile_free <= start ? 0.5 : 1);
  if (transfers) {
    model.result.vector_transfers++;
  } else {
    model.result.vector_arithmetic++;
  }
  leave(1, start + 4);
}

void core_event_product(int destination, int a, int b) {
  if (!model.active) return;
  const double operands = later(model.tile_ready[a], model.tile_ready[b]);
  // Accumulation passes through the unit: the sum so far is needed 16 cycles before its own end.
  const double sum = model.tile_ready[destination] - 52 + 16;
  const double start = later(later(enter(1), model.tile_free), later(operands, sum));
  model.tile_free = start + 16;
  model.tile_ready[destination] = start + 52;
  model.result.tile_unit += 16;
  model.result.products++;
  leave(1, start + 52);
}

void core_event_zero(int tile) {
  if (!model.active) return;
  const double start = enter(1);
  model.tile_ready[tile] = start;
  leave(1, start);
}

void core_event_load(int tile, _Bool streamed) {
  if (!model.active) return;
  const double start = later(enter(8), model.load_free);
  model.load_free = start + (streamed ? 17 : 8.5);
  model.tile_ready[tile] = model.load_free + 8;
  model.result.tile_loads++;
  leave(8, model.tile_ready[tile]);
}

void core_event_store(int tile) {
  if (!model.active) return;
  const double start = later(later(enter(16), model.tile_ready[tile]), model.tile_free);
  model.tile_free = start + 12;
  model.result.tile_unit += 12;
  model.result.tile_stores++;
  leave(16, start + 12);
}

// Vector instructions by their encoding: EVEX begins with 62, VEX with C4 or C5.
static void count_instruction(const uint8_t *code) {
  const int opcode = code[0] == 0x62 ? 4 : code[0] == 0xc4 ? 3 : code[0] == 0xc5 ? 2 : 0;
  if (opcode == 0) return plain();
  const int map = code[0] == 0xc5 ? 1 : code[1] & (code[0] == 0x62 ? 7 : 31);
  if (code[0] == 0xc4 && map == 2 && (code[3] == 0x49 || code[3] == 0x4b || code[3] == 0x5c))
    return;  // tiles report themselves
  if (code[0] == 0xc4 && (code[3] & 0xf0) == 0xf0 && map >= 2) return plain();  // shifts and bits of general registers
  static const uint8_t moves[] = {0x10, 0x11, 0x28, 0x29, 0x6f, 0x7f};
  vector(map == 1 && memchr(moves, code[opcode], sizeof moves) != NULL);
}

static void on_step(int number, siginfo_t *info, void *raw_context) {
  (void)number, (void)info;
  const ucontext_t *context = raw_context;
  if (model.active) count_instruction((const uint8_t *)context->uc_mcontext.gregs[REG_RIP]);
}

void core_model_begin(void) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = on_step;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGTRAP, &action, NULL);
  memset(&model, 0, sizeof model);
  model.active = 1;
  __asm__ volatile("pushfq; orq %0, (%%rsp); popfq" ::"i"(TRAP_FLAG) : "memory", "cc");
}

core_model_result core_model_end(void) {
  __asm__ volatile("pushfq; andq %0, (%%rsp); popfq" ::"i"(~TRAP_FLAG) : "memory", "cc");
  model.active = 0;
  signal(SIGTRAP, SIG_DFL);
  return model.result;
}
