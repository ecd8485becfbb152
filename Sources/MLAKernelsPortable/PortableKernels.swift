import MLAKernelABI

@inline(never)
public func portableKernels() -> mla_kernel_table { kernelTable(family: MLA_FAMILY_PORTABLE) }
