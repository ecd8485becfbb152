import MLAKernelABI

/// Keys and values that a caller hands in as tensors.
struct TensorKeys: KeySource {
  let k: TensorRows
  let v: TensorRows
  let kernel: mla_attention_kernel
  let dims: mla_kernel_dims

  func pack(
    _ task: PackTask, before next: RowPlace?, into block: (Int) -> UnsafeMutableRawPointer,
    scratch: UnsafeMutableRawPointer
  ) {
    for (i, head) in task.heads.enumerated() {
      var args = mla_pack_args(
        dims: dims, k: k[task.keys.lowerBound, head: head],
        v: v[task.keys.lowerBound, head: head], k_stride: Int64(k.stride),
        v_stride: Int64(v.stride), num_keys: Int64(task.keys.count), format: k.type.rawValue,
        packed: block(task.firstBlock + i * task.blockStride),
        next_k: next.map { UnsafeRawPointer(k[$0.row, head: $0.head]) },
        next_v: next.map { UnsafeRawPointer(v[$0.row, head: $0.head]) })
      kernel.pack(&args)
    }
  }
}
