import MLAKernelABI

/// Keys and values made from latents, block by block: the rows of a block are
/// gathered from the cache and the new tokens, projected up for each head, and
/// packed.
struct LatentKeys: KeySource {
  let source: LatentGather
  let weights: LayerWeights
  let config: LayerConfig
  let attention: mla_attention_kernel
  let projection: mla_projection_kernel

  /// Enough to make gathering cheap beside projecting, few enough to leave
  /// every thread a task. Bears on time only.
  var headsPerTask: Int { 4 }

  func pack(
    _ task: PackTask, into block: (Int) -> UnsafeMutableRawPointer,
    scratch start: UnsafeMutableRawPointer
  ) {
    let scratch = LatentScratch(config, attention, projection)
    let (latents, rows) = (start, start + scratch.rowsOffset)
    let tokens = start + scratch.tokensOffset
    source.gather(
      task.keys, latents: LatentGather.Rows(out: latents, stride: rank),
      // All heads share the rotary parts.
      rope: LatentGather.Rows(out: rows + nope * config.type.bytes, stride: rowDim))
    var packTokens = mla_pack_rows_args(
      rows: latents, row_stride: Int64(rank), num_rows: Int64(task.keys.count),
      row_dim: Int64(rank), format: config.type.rawValue, packed: tokens)
    projection.pack_tokens(&packTokens)
    let values = rows + qkDim * config.type.bytes
    for (i, head) in task.heads.enumerated() {
      project(tokens, task.keys.count, weights.keys(head: head), nope, into: rows)
      project(tokens, task.keys.count, weights.values(head: head), vDim, into: values)
      var args = mla_pack_args(
        dims: config.attention.kernelDims, k: rows, v: values, k_stride: Int64(rowDim),
        v_stride: Int64(rowDim), num_keys: Int64(task.keys.count), format: config.type.rawValue,
        packed: block(task.firstBlock + i * task.blockStride))
      attention.pack(&args)
    }
  }

  private func project(
    _ tokens: UnsafeMutableRawPointer, _ count: Int, _ weights: UnsafeMutableRawPointer,
    _ dim: Int, into out: UnsafeMutableRawPointer
  ) {
    if dim == 0 { return }
    var args = mla_project_args(
      tokens: tokens, num_tokens: Int64(count), weights: weights, num_weights: Int64(dim),
      row_dim: Int64(rank), out_format: config.type.rawValue, out: out,
      out_stride: Int64(rowDim))
    projection.project(&args)
  }

  private var rank: Int { config.attention.kvLoraRank }
  private var nope: Int { config.attention.qkNopeHeadDim }
  private var vDim: Int { config.attention.vHeadDim }
  private var qkDim: Int { config.attention.qkHeadDim }
  private var rowDim: Int { qkDim + vDim }
}

/// What a worker keeps while it packs a block.
///
///     latents  [key_block][kv_lora_rank]
///     rows     [key_block][nope | rope | v_head_dim]  one head's keys and values
///     tokens   the latents as the projection kernel packs them
struct LatentScratch {
  let rowsOffset: Int
  let tokensOffset: Int
  let bytes: Int

  init(
    _ config: LayerConfig, _ attention: mla_attention_kernel, _ projection: mla_projection_kernel
  ) {
    let dims = config.attention
    let rows = Int(attention.key_block)
    func aligned(_ bytes: Int) -> Int { (bytes + 63) / 64 * 64 }
    rowsOffset = aligned(rows * dims.kvLoraRank * config.type.bytes)
    tokensOffset = rowsOffset + aligned(rows * (dims.qkHeadDim + dims.vHeadDim) * config.type.bytes)
    bytes =
      tokensOffset
      + Int(projection.packed_tokens_bytes(attention.key_block, Int64(dims.kvLoraRank)))
  }
}
