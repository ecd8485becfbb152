import MLAKernelABI

@inline(never)
public func avx2Kernels() -> mla_kernel_table { kernelTable(family: MLA_FAMILY_AVX2) }
