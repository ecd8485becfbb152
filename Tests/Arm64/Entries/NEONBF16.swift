import MLAKernelABI

/// For kernels.c, which cannot call Swift by its own names.
@_cdecl("add_neon_bf16_kernels")
public func addNEONBF16KernelsForC(_ table: UnsafeMutablePointer<mla_kernel_table>) {
  table.pointee = neonBF16Kernels(over: table.pointee)
}
