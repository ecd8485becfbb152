#include "mla_cuda_kernels.h"

#define TEXT(name) static const char name[] =

TEXT(program) {
#embed "Kernels/MLAKernels.cu" suffix(, 0)
};
TEXT(attention) {
#embed "Kernels/Attention.cuh" suffix(, 0)
};
TEXT(attention_rows) {
#embed "Kernels/AttentionRows.cuh" suffix(, 0)
};
TEXT(batch) {
#embed "Kernels/Batch.cuh" suffix(, 0)
};
TEXT(cache) {
#embed "Kernels/Cache.cuh" suffix(, 0)
};
TEXT(convert) {
#embed "Kernels/Convert.cuh" suffix(, 0)
};
TEXT(elements) {
#embed "Kernels/Elements.cuh" suffix(, 0)
};
TEXT(gather) {
#embed "Kernels/Gather.cuh" suffix(, 0)
};
TEXT(instructions) {
#embed "Kernels/Instructions.cuh" suffix(, 0)
};
TEXT(keys) {
#embed "Kernels/Keys.cuh" suffix(, 0)
};
TEXT(merge) {
#embed "Kernels/Merge.cuh" suffix(, 0)
};
TEXT(projection) {
#embed "Kernels/Projection.cuh" suffix(, 0)
};
TEXT(rows) {
#embed "Kernels/Rows.cuh" suffix(, 0)
};
TEXT(tile) {
#embed "Kernels/Tile.cuh" suffix(, 0)
};
TEXT(upload) {
#embed "Kernels/Upload.cuh" suffix(, 0)
};
TEXT(parameters) {
#embed "include/mla_cuda_kernels.h" suffix(, 0)
};

// As they include one another; the last is the one that Swift reads.
static const mla_cuda_source sources[] = {
    {"MLAKernels.cu", program},
    {"Attention.cuh", attention},
    {"AttentionRows.cuh", attention_rows},
    {"Batch.cuh", batch},
    {"Cache.cuh", cache},
    {"Convert.cuh", convert},
    {"Elements.cuh", elements},
    {"Gather.cuh", gather},
    {"Instructions.cuh", instructions},
    {"Keys.cuh", keys},
    {"Merge.cuh", merge},
    {"Projection.cuh", projection},
    {"Rows.cuh", rows},
    {"Tile.cuh", tile},
    {"Upload.cuh", upload},
    {"mla_cuda_kernels.h", parameters},
};

const mla_cuda_source *mla_cuda_sources(int *count) {
  *count = sizeof(sources) / sizeof(sources[0]);
  return sources;
}
