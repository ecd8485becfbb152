// Random batches for the attention kernels, against float64.
#pragma once

#include "problem.hpp"

/// Every kernel of one kind, on batches of each kind: ragged, strided, short, empty.
void random_batches(bool is_by_tiles, int seeds);
