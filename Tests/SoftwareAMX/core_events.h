// What the model of the core hears of tile instructions as they are carried out.
#ifndef CORE_EVENTS_H
#define CORE_EVENTS_H

#include <stdbool.h>

void core_event_product(int destination, int a, int b);
void core_event_zero(int tile);
void core_event_load(int tile, bool streamed);
void core_event_store(int tile);

#endif  // CORE_EVENTS_H
