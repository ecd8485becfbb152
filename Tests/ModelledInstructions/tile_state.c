#include "tile_state.h"

#include <immintrin.h>
#include <string.h>

static bool configured(const tile_state *state, int tile) {
  return state->config.palette == 1 && tile < TILE_COUNT && state->config.rows[tile] != 0;
}

bool tile_configure(tile_state *state, const void *memory) {
  tile_config next;
  memcpy(&next, memory, sizeof next);
  if (next.palette > 1 || (next.palette == 1 && next.start_row > TILE_MAX_ROWS)) return false;
  for (int i = 0; i < 14; i++)
    if (next.reserved[i] != 0) return false;
  for (int i = 0; i < 16; i++) {
    const bool empty = next.rows[i] == 0 && next.row_bytes[i] == 0;
    if (empty) continue;
    if (i >= TILE_COUNT || next.rows[i] == 0 || next.row_bytes[i] == 0) return false;
    if (next.rows[i] > TILE_MAX_ROWS || next.row_bytes[i] > TILE_MAX_BYTES) return false;
  }
  memset(state, 0, sizeof *state);
  if (next.palette == 1) state->config = next;
  return true;
}

bool tile_store_config(const tile_state *state, void *memory) {
  memcpy(memory, &state->config, sizeof state->config);
  return true;
}

bool tile_release(tile_state *state) {
  memset(state, 0, sizeof *state);
  return true;
}

bool tile_zero(tile_state *state, int tile) {
  if (!configured(state, tile)) return false;
  memset(state->tiles[tile], 0, sizeof state->tiles[tile]);
  return true;
}

bool tile_load(tile_state *state, int tile, const uint8_t *memory, int64_t stride) {
  if (!tile_zero(state, tile)) return false;
  for (int row = 0; row < state->config.rows[tile]; row++)
    memcpy(state->tiles[tile][row], memory + row * stride, state->config.row_bytes[tile]);
  return true;
}

bool tile_store(const tile_state *state, int tile, uint8_t *memory, int64_t stride) {
  if (!configured(state, tile)) return false;
  for (int row = 0; row < state->config.rows[tile]; row++)
    memcpy(memory + row * stride, state->tiles[tile][row], state->config.row_bytes[tile]);
  return true;
}

typedef float row_of_floats __attribute__((ext_vector_type(16)));
typedef uint32_t row_of_words __attribute__((ext_vector_type(16)));

static row_of_words load_row(const tile_state *state, int tile, int row) {
  row_of_words words;
  memcpy(&words, state->tiles[tile][row], sizeof words);
  return words;
}

// The manual's pseudo code, one row of the destination at a time: even and odd
// products are summed apart from zero, then together, then onto the destination.
__attribute__((target("fma"))) static void dot_rows(tile_state *state, int destination, int a, int b) {
  const int pairs = state->config.row_bytes[a] / 4;
  row_of_floats even_b[TILE_MAX_ROWS], odd_b[TILE_MAX_ROWS];
  for (int k = 0; k < pairs; k++) {
    const row_of_words row = load_row(state, b, k);
    even_b[k] = (row_of_floats)(row << 16);
    odd_b[k] = (row_of_floats)(row & 0xffff0000u);
  }
  for (int m = 0; m < state->config.rows[destination]; m++) {
    const row_of_words left = load_row(state, a, m);
    row_of_floats even = 0, odd = 0;
    for (int k = 0; k < pairs; k++) {
      const row_of_words even_a = left[k] << 16, odd_a = left[k] & 0xffff0000u;
      even = __builtin_elementwise_fma((row_of_floats)even_a, even_b[k], even);
      odd = __builtin_elementwise_fma((row_of_floats)odd_a, odd_b[k], odd);
    }
    const row_of_floats sum = (row_of_floats)load_row(state, destination, m) + (even + odd);
    memcpy(state->tiles[destination][m], &sum, state->config.row_bytes[destination]);
  }
}

bool tile_dot_bf16(tile_state *state, int destination, int a, int b) {
  if (!configured(state, destination) || !configured(state, a) || !configured(state, b)) return false;
  if (destination == a || destination == b || a == b) return false;
  const tile_config *config = &state->config;
  if (config->row_bytes[destination] % 4 || config->row_bytes[a] % 4 || config->row_bytes[b] % 4) return false;
  if (config->rows[destination] != config->rows[a]) return false;
  if (config->row_bytes[destination] != config->row_bytes[b]) return false;
  if (config->row_bytes[a] / 4 != config->rows[b]) return false;
  // The instruction flushes subnormal inputs and results and rounds to nearest, whatever MXCSR says.
  const unsigned int saved = _mm_getcsr();
  _mm_setcsr(_MM_MASK_MASK | _MM_FLUSH_ZERO_ON | 0x0040u);
  dot_rows(state, destination, a, b);
  _mm_setcsr(saved);
  return true;
}
