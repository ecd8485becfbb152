#include "mla_cuda_kernels.h"

// `make cubins` makes all of them or none.
#if __has_embed("cubins/sm_120.cubin")

static const unsigned char sm_80[] = {
#embed "cubins/sm_80.cubin"
};
static const unsigned char sm_90[] = {
#embed "cubins/sm_90.cubin"
};
static const unsigned char sm_100[] = {
#embed "cubins/sm_100.cubin"
};
static const unsigned char sm_120[] = {
#embed "cubins/sm_120.cubin"
};

static const mla_cuda_image images[] = {
    {80, sm_80, sizeof(sm_80)},
    {90, sm_90, sizeof(sm_90)},
    {100, sm_100, sizeof(sm_100)},
    {120, sm_120, sizeof(sm_120)},
};

const mla_cuda_image *mla_cuda_images(int *count) {
  *count = sizeof(images) / sizeof(images[0]);
  return images;
}

#else

const mla_cuda_image *mla_cuda_images(int *count) {
  *count = 0;
  return 0;
}

#endif
