import MLAKernelABI

/// For kernels.c, which cannot call Swift by its own names.
@_cdecl("fill_portable_kernels")
public func fillPortableKernelsForC(_ table: UnsafeMutablePointer<mla_kernel_table>) {
  table.initialize(to: portableKernels())
}
