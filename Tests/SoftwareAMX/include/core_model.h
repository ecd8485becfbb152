// How long a core with tiles would take, by the figures that were measured on
// one: an estimate where no such core is at hand.
//
// The calling thread runs step by step, and each instruction goes through a model
// of an out-of-order core: six instructions a cycle enter a window of 512 in
// order and leave it in order; in between, each waits for its unit and, if it
// is a tile instruction, for its tiles. Of vector registers and memory it knows
// no dependences, and no misses but those of streamed tiles, which come from
// the L2 cache.
//
//     product of tiles       16 cycles of the tile unit, ready after 52
//     load of a tile          8.5 cycles, streamed 17
//     store of a tile        12 cycles, of the tile unit as well: little of it is hidden
//     vector arithmetic       1 cycle, half of one while the tile unit is idle
//     vector load or store    half a cycle
#ifndef CORE_MODEL_H
#define CORE_MODEL_H

#include <stdint.h>

typedef struct core_model_result {
  double cycles;
  double tile_unit;           // cycles in which it was busy
  uint64_t products;          // of tiles
  uint64_t tile_loads;        // streamed ones included
  uint64_t tile_stores;
  uint64_t vector_arithmetic;
  uint64_t vector_transfers;
  uint64_t others;
} core_model_result;

// Between the two the calling thread takes a signal with each instruction. Only
// where software_amx_install returned SOFTWARE_AMX_ACTIVE.
void core_model_begin(void);
core_model_result core_model_end(void);

#endif  // CORE_MODEL_H
