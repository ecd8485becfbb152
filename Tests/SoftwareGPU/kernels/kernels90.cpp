// Those of sm_90a.
#include <MLAKernels90.cu>
