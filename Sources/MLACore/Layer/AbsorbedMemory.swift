import MLAKernelABI

/// What attention in latent space keeps beside its tensors.
///
///     queries   [token][head][latent | rope]  a wave's, of the layer's dtype
///     partials  [tile][range][token][head] rows of partial results, behind the wave's
///               queries
///     scratch   one per worker, see `AbsorbedScratch`
struct AbsorbedMemory {
  let scratch: WorkerScratch

  /// - Parameter threads: most workers.
  init(_ schedule: AbsorbedSchedule, scratchBytes: Int, threads: Int) {
    scratch = WorkerScratch(
      workers: max(1, min(threads, schedule.mostTasks)), bytes: scratchBytes,
      at: alignedUp(schedule.waveBytes) + memoryAlignment)
  }

  /// Where a wave's partial results begin.
  func partialsOffset(_ wave: AbsorbedSchedule.Wave, _ shape: AbsorbedShape) -> Int {
    alignedUp(wave.end.token * shape.queryBytes)
  }

  var bytes: Int { scratch.end + memoryAlignment }
}

/// What a worker keeps, one of these at a time:
///
///     absorb, finish   rows [groupTokens][nope or latent], of the layer's dtype
///                      tokens, the rows as the projection kernel packs them
///                      products [groupTokens][v_head_dim] fp32
///     attend           rows [key_block][latent | rope]
///                      packed [keys_per_pack / key_block] blocks
///                      partial, query_tile rows
///                      kernel, the attention kernel's own
struct AbsorbedScratch {
  let tokensOffset: Int
  let productsOffset: Int
  let packedOffset: Int
  let partialOffset: Int
  let kernelOffset: Int
  let bytes: Int

  init(
    _ config: LayerConfig, _ shape: AbsorbedShape, _ attention: mla_attention_kernel,
    _ projection: mla_projection_kernel
  ) {
    let dims = config.attention
    let tokens = AbsorbedSchedule.groupTokens
    let widest = max(dims.qkNopeHeadDim, dims.kvLoraRank)
    tokensOffset = alignedUp(tokens * widest * config.type.bytes)
    productsOffset =
      tokensOffset + alignedUp(Int(projection.packed_tokens_bytes(Int64(tokens), Int64(widest))))
    let projecting = productsOffset + alignedUp(tokens * dims.vHeadDim * 4)
    let block = Int(attention.key_block)
    packedOffset = alignedUp(block * shape.keyDim * config.type.bytes)
    partialOffset =
      packedOffset
      + shape.keysPerPack / block * Int(attention.packed_block_bytes(config.latentDims))
    kernelOffset = partialOffset + alignedUp(Int(attention.query_tile) * shape.partialFloats * 4)
    bytes = max(projecting, kernelOffset + Int(attention.scratch_bytes(config.latentDims)))
  }
}

extension LayerConfig {
  /// Of attention in latent space: a key is a latent and its rotary part, its
  /// value the latent.
  var latentDims: mla_kernel_dims {
    mla_kernel_dims(
      qk_head_dim: Int64(attention.kvLoraRank + attention.qkRopeHeadDim),
      v_head_dim: Int64(attention.kvLoraRank))
  }

  func absorbedShape(_ kernel: mla_attention_kernel) -> AbsorbedShape {
    let blockBytes = Int(kernel.packed_block_bytes(latentDims))
    return AbsorbedShape(
      numHeads: attention.numHeads, keyDim: Int(latentDims.qk_head_dim),
      kvLoraRank: attention.kvLoraRank, elementBytes: type.bytes,
      keysPerPack: Int(kernel.key_block)
        * max(1, min(l2Bytes / blockBytes, AbsorbedShape.mostKeysPerPack / Int(kernel.key_block))))
  }
}

/// Packed keys are read again by each tile of a tile's queries, whose results grow
/// with every pack: as much as is near a core.
private let l2Bytes = 1 << 20
