// The tiles of one thread and what each instruction does to them.
#ifndef TILE_STATE_H
#define TILE_STATE_H

#include <stdbool.h>
#include <stdint.h>

#define TILE_COUNT 8
#define TILE_MAX_ROWS 16
#define TILE_MAX_BYTES 64

// The 64 bytes that LDTILECFG reads.
typedef struct tile_config {
  uint8_t palette;
  uint8_t start_row;
  uint8_t reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
} tile_config;

typedef struct tile_state {
  tile_config config;  // palette 0: not configured
  _Alignas(64) uint8_t tiles[TILE_COUNT][TILE_MAX_ROWS][TILE_MAX_BYTES];
} tile_state;

// Each returns false where the CPU would raise a fault.
bool tile_configure(tile_state *state, const void *memory);
bool tile_store_config(const tile_state *state, void *memory);
bool tile_release(tile_state *state);
bool tile_zero(tile_state *state, int tile);
bool tile_load(tile_state *state, int tile, const uint8_t *memory, int64_t stride);
bool tile_store(const tile_state *state, int tile, uint8_t *memory, int64_t stride);
bool tile_dot_bf16(tile_state *state, int destination, int a, int b);

#endif  // TILE_STATE_H
