#include "include/instruction_probes.h"

#include <string.h>

typedef struct configuration {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
} configuration;

static void set_shape(configuration *config, int tile, probe_tile_shape shape) {
  config->rows[tile] = (uint8_t)shape.rows;
  config->row_bytes[tile] = (uint16_t)shape.row_bytes;
}

void probe_dot_bf16(probe_tile_shape c_shape, probe_tile_shape a_shape, probe_tile_shape b_shape, const void *c,
                    const void *a, const void *b, void *out) {
  configuration config;
  memset(&config, 0, sizeof config);
  config.palette = 1;
  set_shape(&config, 0, c_shape);
  set_shape(&config, 5, a_shape);
  set_shape(&config, 7, b_shape);
  __asm__ volatile(
      "ldtilecfg %[config]\n\t"
      "tileloadd (%[c], %[pitch], 1), %%tmm0\n\t"
      "tileloadd (%[a], %[pitch], 1), %%tmm5\n\t"
      "tileloaddt1 (%[b], %[pitch], 1), %%tmm7\n\t"
      "tdpbf16ps %%tmm7, %%tmm5, %%tmm0\n\t"
      "tilestored %%tmm0, (%[out], %[pitch], 1)\n\t"
      "tilerelease"
      :
      : [config] "m"(config), [a] "r"(a), [b] "r"(b), [c] "r"(c), [out] "r"(out), [pitch] "r"((int64_t)64)
      : "memory");
}

static const configuration one_tile = {.palette = 1, .row_bytes = {64}, .rows = {16}};

#define COPY(load_form, store_form)                                                                              \
  __asm__ volatile("ldtilecfg %[config]\n\ttileloadd " load_form ", %%tmm0\n\t"                                   \
                   "movq %[to], %%rdi\n\tmovq %[to_pitch], %%rsi\n\tmovq %%rdi, %%r12\n\tmovq %%rsi, %%r13\n\t"    \
                   "tilestored %%tmm0, " store_form "\n\ttilerelease"                                             \
                   : "+D"(rdi), "+S"(rsi), "+r"(r12), "+r"(r13)                                                   \
                   : [config] "m"(one_tile), [to] "r"(to_base), [to_pitch] "r"(to_index)                          \
                   : "memory")

void probe_copy_tile(int form, const void *from, int64_t from_pitch, void *to, int64_t to_pitch) {
  const int64_t offset = form == PROBE_SMALL_OFFSET ? 64 : form == PROBE_LARGE_OFFSET ? 4096 : 0;
  const int64_t scale = form == PROBE_SCALED_INDEX ? 4 : 1;
  int64_t rdi = (int64_t)from - offset, rsi = from_pitch / scale;
  const int64_t to_base = (int64_t)to - offset, to_index = to_pitch / scale;
  register int64_t r12 __asm__("r12") = rdi;
  register int64_t r13 __asm__("r13") = rsi;
  switch (form) {
    case PROBE_SCALED_INDEX: COPY("(%%rdi, %%rsi, 4)", "(%%rdi, %%rsi, 4)"); break;
    case PROBE_SMALL_OFFSET: COPY("64(%%rdi, %%rsi, 1)", "64(%%rdi, %%rsi, 1)"); break;
    case PROBE_LARGE_OFFSET: COPY("4096(%%rdi, %%rsi, 1)", "4096(%%rdi, %%rsi, 1)"); break;
    case PROBE_HIGH_REGISTERS: COPY("(%%r12, %%r13, 1)", "(%%r12, %%r13, 1)"); break;
    case PROBE_NO_INDEX: COPY("(%%rdi)", "(%%rdi, %%rsi, 1)"); break;
    default: COPY("(%%rdi, %%rsi, 1)", "(%%rdi, %%rsi, 1)"); break;
  }
}

void probe_configuration(void *config, void *tile) {
  __asm__ volatile(
      "ldtilecfg %[constant]\n\t"
      "tilezero %%tmm0\n\t"
      "tilestored %%tmm0, (%[tile], %[pitch], 1)\n\t"
      "sttilecfg -8(%[config], %[eight], 1)\n\t"
      "tilerelease"
      :
      : [constant] "m"(one_tile), [config] "r"(config), [eight] "r"((int64_t)8), [tile] "r"(tile),
        [pitch] "r"((int64_t)64)
      : "memory");
}
