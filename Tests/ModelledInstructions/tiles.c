#include "modelled_tiles.h"

#include <stdio.h>
#include <stdlib.h>

#include "tile_state.h"

static _Thread_local tile_state state;

static void check(bool allowed, const char *instruction) {
  if (allowed) return;
  fprintf(stderr, "%s: a CPU would raise a fault\n", instruction);
  abort();
}

void modelled_tile_loadconfig(const void *config) {
  check(tile_configure(&state, config), "LDTILECFG");
}

void modelled_tile_release(void) { check(tile_release(&state), "TILERELEASE"); }

void modelled_tile_zero(int tile) { check(tile_zero(&state, tile), "TILEZERO"); }

void modelled_tile_loadd(int tile, const void *memory, int64_t pitch) {
  check(tile_load(&state, tile, memory, pitch), "TILELOADD");
}

void modelled_tile_stored(int tile, void *memory, int64_t pitch) {
  check(tile_store(&state, tile, memory, pitch), "TILESTORED");
}

void modelled_tile_dpbf16ps(int destination, int a, int b) {
  check(tile_dot_bf16(&state, destination, a, b), "TDPBF16PS");
}
