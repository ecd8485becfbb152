import MLAKernelABI

@inline(never)
public func neonKernels() -> mla_kernel_table { kernelTable(family: MLA_FAMILY_NEON) }
