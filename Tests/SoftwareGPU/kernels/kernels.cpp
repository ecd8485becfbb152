// The kernels, compiled for the host: launched by name.
#include <MLAKernels.cu>
