// An executable model of the AMX tile instructions, so that AMX code can be
// checked on any CPU with AVX-512: the instructions trap as undefined, a SIGILL
// handler carries them out as Intel's manual words them, and the program goes on
// behind them. It is a test tool: thousands of times slower than the real thing.
//
// Modelled: LDTILECFG STTILECFG TILERELEASE TILEZERO TILELOADD TILELOADDT1
// TILESTORED TDPBF16PS, palette 1, in 64-bit code. Tile state is per thread. What
// the manual calls #UD (no configuration, shapes that do not fit, the same tile
// twice) goes to the handler that was there before, as does any other
// instruction; what it calls #GP becomes a SIGILL too.
#ifndef SOFTWARE_AMX_H
#define SOFTWARE_AMX_H

#include <stdint.h>

#include "core_model.h"

enum {
  SOFTWARE_AMX_UNAVAILABLE = -1,  // neither AMX nor what compiled AMX code needs besides
  SOFTWARE_AMX_HARDWARE = 0,      // the CPU has AMX and granted it: the model stays out of the way
  SOFTWARE_AMX_ACTIVE = 1         // the model serves this process from now on
};

// Says how AMX code can run in this process and prepares for it. Safe to call
// again. Call it before starting threads that run AMX code.
int software_amx_install(void);

// What the calling thread has carried out under the model since the last reset.
typedef struct software_amx_counters {
  uint64_t configures;       // LDTILECFG
  uint64_t releases;         // TILERELEASE
  uint64_t zeros;            // TILEZERO
  uint64_t loads;            // TILELOADD
  uint64_t streaming_loads;  // TILELOADDT1
  uint64_t stores;           // TILESTORED
  uint64_t products;         // TDPBF16PS
  uint64_t traps;            // signals taken: runs of neighbouring instructions
} software_amx_counters;

software_amx_counters software_amx_read_counters(void);
void software_amx_reset_counters(void);

#endif  // SOFTWARE_AMX_H
