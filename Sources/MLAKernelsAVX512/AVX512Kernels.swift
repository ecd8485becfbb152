import MLAKernelABI

@inline(never)
public func avx512Kernels() -> mla_kernel_table { kernelTable(family: MLA_FAMILY_AVX512) }
