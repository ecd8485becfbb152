#include "modelled_tiles.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "tile_state.h"

// Between LDTILECFG and TILERELEASE. Not thread-local itself, for which a library that is
// loaded at run time has no room, nor malloc's, whose failures are tested for.
static _Thread_local tile_state *state;

static void check(bool allowed, const char *instruction) {
  if (allowed) return;
  fprintf(stderr, "%s: a CPU would raise a fault\n", instruction);
  abort();
}

void modelled_tile_loadconfig(const void *config) {
  if (!state) {
    void *memory = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(memory != MAP_FAILED, "no memory for tiles");
    state = memory;
  }
  check(tile_configure(state, config), "LDTILECFG");
}

void modelled_tile_release(void) {
  if (state) munmap(state, sizeof *state);
  state = NULL;
}

void modelled_tile_zero(int tile) { check(state && tile_zero(state, tile), "TILEZERO"); }

void modelled_tile_loadd(int tile, const void *memory, int64_t pitch) {
  check(state && tile_load(state, tile, memory, pitch), "TILELOADD");
}

void modelled_tile_stored(int tile, void *memory, int64_t pitch) {
  check(state && tile_store(state, tile, memory, pitch), "TILESTORED");
}

void modelled_tile_dpbf16ps(int destination, int a, int b) {
  check(state && tile_dot_bf16(state, destination, a, b), "TDPBF16PS");
}
