import MLAKernelABI

/// What a worker keeps for attention in latent space, one of these at a time:
///
///     absorb, finish   rows [groupTokens][nope or latent], of the layer's dtype
///                      tokens, the rows as the projection kernel packs them
///                      products [groupTokens][v_head_dim] fp32
///     attend           rows [key_block][latent | rope], and what is packed of them; or
///                      what `SelectedScratch` has
struct AbsorbedScratch {
  let tokensOffset: Int
  let productsOffset: Int
  let attending: SharedKeyScratch
  /// nil: tokens attend to all they see.
  let selected: SelectedScratch?
  let bytes: Int

  init(
    _ config: LayerConfig, _ shape: SharedKeyShape, _ attention: mla_attention_kernel,
    _ projection: mla_projection_kernel, selected: SelectedScratch? = nil
  ) {
    self.selected = selected
    let dims = config.attention
    let tokens = SharedKeySchedule.groupTokens
    let widest = max(dims.qkNopeHeadDim, dims.kvLoraRank)
    tokensOffset = alignedUp(tokens * widest * config.type.bytes)
    productsOffset =
      tokensOffset + alignedUp(Int(projection.packed_tokens_bytes(Int64(tokens), Int64(widest))))
    attending = SharedKeyScratch(
      attention, config.latentDims, shape,
      rowBytes: Int(attention.key_block) * config.latentKeyDim * config.type.bytes)
    bytes = max(
      productsOffset + alignedUp(tokens * dims.vHeadDim * 4), selected?.bytes ?? attending.bytes)
  }
}

extension LayerConfig {
  /// Of attention in latent space: a key is a latent and its rotary part, its
  /// value the latent.
  var latentDims: mla_kernel_dims {
    mla_kernel_dims(qk_head_dim: Int64(latentKeyDim), v_head_dim: Int64(attention.kvLoraRank))
  }

  var latentKeyDim: Int { attention.kvLoraRank + attention.qkRopeHeadDim }

  /// All heads share one key.
  func absorbedShape(_ kernel: mla_attention_kernel) -> SharedKeyShape {
    SharedKeyShape(
      numHeads: attention.numHeads, vHeadDim: attention.kvLoraRank,
      queryBytes: attention.numHeads * latentKeyDim * type.bytes,
      keysPerPack: kernel.keysPerPack(latentDims))
  }

  /// The same of tokens with keys of their own. A range has several blocks of these: each looks
  /// for its own among all that are listed.
  func selectedShape(_ kernel: mla_rows_kernel) -> SharedKeyShape {
    SharedKeyShape(
      numHeads: attention.numHeads, vHeadDim: attention.kvLoraRank,
      queryBytes: attention.numHeads * latentKeyDim * type.bytes,
      keysPerPack: 4 * Int(kernel.row_block), hasOwnKeys: true)
  }
}
