import MLAKernelABI
import MLAKernelsAMX
import MLAKernelsAVX512

/// What has no kernel on tiles is AVX512's.
let amxTable = amxKernels(over: avx512Kernels())
