import MLAKernelABI

/// Keys and values made from latents, block by block: the rows of a block are
/// gathered from the cache and the new tokens, and projected for each head into
/// the layout that attention reads.
struct LatentKeys: KeySource {
  let source: LatentGather
  let weights: LayerWeights
  let config: LayerConfig
  let attention: mla_attention_kernel
  let projection: mla_projection_kernel

  /// Enough to make gathering cheap beside projecting, few enough to leave
  /// every thread a task. Bears on time only.
  static var headsPerTask: Int { 4 }

  func pack(
    _ task: PackTask, before _: RowPlace?, into block: (Int) -> UnsafeMutableRawPointer,
    scratch start: UnsafeMutableRawPointer
  ) {
    let rope = RowTarget(
      out: start + LatentScratch(config, attention, projection).ropesOffset,
      stride: config.attention.qkRopeHeadDim)
    // All heads share the rotary parts.
    let tokens = packedTokens(of: task.keys, rope: rope, scratch: start)
    for (i, head) in task.heads.enumerated() {
      var args = mla_project_block_args(
        dims: config.attention.kernelDims, tokens: tokens, num_keys: Int64(task.keys.count),
        row_dim: Int64(config.attention.kvLoraRank), key_weights: weights.keys(head: head),
        nope_dim: Int64(config.attention.qkNopeHeadDim),
        value_weights: weights.values(head: head), rope: rope.out,
        rope_stride: Int64(rope.stride), format: config.type.rawValue,
        packed: block(task.firstBlock + i * task.blockStride))
      projection.project_block(&args)
    }
  }

  /// The latents of some keys, gathered and packed for the projection kernel.
  func packedTokens(
    of keys: Range<Int>, rope: RowTarget, scratch latents: UnsafeMutableRawPointer
  ) -> UnsafeMutableRawPointer {
    let rank = config.attention.kvLoraRank
    source.gather(keys, latents: RowTarget(out: latents, stride: rank), rope: rope)
    let tokens = latents + LatentScratch(config, attention, projection).tokensOffset
    var args = mla_pack_rows_args(
      rows: latents, row_stride: Int64(rank), num_rows: Int64(keys.count), row_dim: Int64(rank),
      format: config.type.rawValue, packed: tokens)
    projection.pack_tokens(&args)
    return tokens
  }

  /// Keys without their rotary parts, and values, of one head.
  func project(
    _ tokens: UnsafeMutableRawPointer, _ count: Int, head: Int, keys: RowTarget,
    values: RowTarget
  ) {
    let (nope, vDim) = (config.attention.qkNopeHeadDim, config.attention.vHeadDim)
    project(tokens, count, weights.keys(head: head), nope, to: keys)
    project(tokens, count, weights.values(head: head), vDim, to: values)
  }

  private func project(
    _ tokens: UnsafeMutableRawPointer, _ count: Int, _ weights: UnsafeMutableRawPointer,
    _ dim: Int, to rows: RowTarget
  ) {
    if dim == 0 { return }
    var args = mla_project_args(
      tokens: tokens, num_tokens: Int64(count), weights: weights, num_weights: Int64(dim),
      row_dim: Int64(config.attention.kvLoraRank), out_format: config.type.rawValue,
      out: rows.out, out_stride: Int64(rows.stride))
    projection.project(&args)
  }
}

/// What a worker keeps while it packs a block.
///
///     latents  [key_block][kv_lora_rank]
///     ropes    [key_block][qk_rope_head_dim]
///     tokens   the latents as the projection kernel packs them
struct LatentScratch {
  let ropesOffset: Int
  let tokensOffset: Int
  let bytes: Int

  init(
    _ config: LayerConfig, _ attention: mla_attention_kernel, _ projection: mla_projection_kernel
  ) {
    let dims = config.attention
    let rows = Int(attention.key_block)
    ropesOffset = alignedUp(rows * dims.kvLoraRank * config.type.bytes)
    tokensOffset = ropesOffset + alignedUp(rows * dims.qkRopeHeadDim * config.type.bytes)
    bytes =
      tokensOffset
      + Int(projection.packed_tokens_bytes(attention.key_block, Int64(dims.kvLoraRank)))
  }
}
