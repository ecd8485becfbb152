// Single tile instructions in the forms a compiler emits, to test the model with.
#ifndef INSTRUCTION_PROBES_H
#define INSTRUCTION_PROBES_H

#include <stdint.h>

typedef struct probe_tile_shape {
  int32_t rows;
  int32_t row_bytes;
} probe_tile_shape;

// c += a b on tiles of the given shapes, all with a row pitch of 64 bytes; then
// writes c to `out`. Runs LDTILECFG, TILELOADD, TILELOADDT1, TDPBF16PS,
// TILESTORED and TILERELEASE.
void probe_dot_bf16(probe_tile_shape c_shape, probe_tile_shape a_shape, probe_tile_shape b_shape, const void *c,
                    const void *a, const void *b, void *out);

// Copies a full tile from `from` to `to` (pitches in bytes) through one addressing form.
enum {
  PROBE_BASE_INDEX = 0,      // [rdi + rsi*1]
  PROBE_SCALED_INDEX = 1,    // [rdi + rsi*4], pitch a multiple of 4
  PROBE_SMALL_OFFSET = 2,    // [rdi + rsi*1 + 64]
  PROBE_LARGE_OFFSET = 3,    // [rdi + rsi*1 + 4096]
  PROBE_HIGH_REGISTERS = 4,  // [r12 + r13*1]
  PROBE_NO_INDEX = 5,        // [rdi]: every row is the first; the store uses both registers
  PROBE_FORMS = 6
};
void probe_copy_tile(int form, const void *from, int64_t from_pitch, void *to, int64_t to_pitch);

// Configures one 16 x 64 tile from a constant (RIP-relative), stores the
// configuration (through an index register) to `config` and a zeroed tile to `tile`.
void probe_configuration(void *config, void *tile);

#endif  // INSTRUCTION_PROBES_H
