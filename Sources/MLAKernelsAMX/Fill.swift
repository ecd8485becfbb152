import MLAKernelABI

/// Puts this family's kernels into a table that the weaker families have filled.
@inline(never)
public func fillAMXKernels(_ table: UnsafeMutablePointer<mla_kernel_table>) {}
