// The tile instructions on tiles in memory, those of the calling thread. What the CPU
// would raise a fault for ends the program.
#ifndef MODELLED_TILES_H
#define MODELLED_TILES_H

#include <stdint.h>

void modelled_tile_loadconfig(const void *config);
void modelled_tile_release(void);
void modelled_tile_zero(int tile);
void modelled_tile_loadd(int tile, const void *memory, int64_t pitch);
void modelled_tile_stored(int tile, void *memory, int64_t pitch);
void modelled_tile_dpbf16ps(int destination, int a, int b);

#endif  // MODELLED_TILES_H
