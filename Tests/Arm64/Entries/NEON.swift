import MLAKernelABI

/// For kernels.c, which cannot call Swift by its own names.
@_cdecl("fill_neon_kernels")
public func fillNEONKernelsForC(_ table: UnsafeMutablePointer<mla_kernel_table>) {
  table.initialize(to: neonKernels())
}
