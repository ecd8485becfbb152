import MLAKernelABI

/// Keys and values of attention in latent space: latents and rotary parts as they are,
/// gathered block by block.
struct LatentsAsKeys: KeySource {
  let source: LatentGather
  let kernel: mla_attention_kernel

  /// Of one block and the one head that there is; `scratch` has room for the block's rows.
  func pack(
    _ task: PackTask, before next: RowPlace?, into block: (Int) -> UnsafeMutableRawPointer,
    scratch: UnsafeMutableRawPointer
  ) {
    let config = source.config
    let (dim, rank) = (config.latentKeyDim, config.attention.kvLoraRank)
    source.gather(
      task.keys, latents: RowTarget(out: scratch, stride: dim),
      rope: RowTarget(out: scratch + rank * config.type.bytes, stride: dim))
    var args = mla_pack_args(
      dims: config.latentDims, k: scratch, v: scratch, k_stride: Int64(dim),
      v_stride: Int64(dim), num_keys: Int64(task.keys.count), format: config.type.rawValue,
      packed: block(task.firstBlock), next_k: nil, next_v: nil)
    kernel.pack(&args)
  }
}
