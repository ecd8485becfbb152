// Kernels arrive with the shared sources.
