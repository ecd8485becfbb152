import CMLAPrefill

/// A cache as its owner has it: blocks of slots, a token each, in one tensor or two.
struct CacheTensors: Sendable {
  /// [num_blocks, block_size, width] or [num_blocks, width]: latents, and behind them the
  /// rotary parts where those have no tensor of their own.
  let cache: CallTensor
  /// nil: they have none.
  let rope: CallTensor?

  init(
    _ cache: UnsafePointer<mla_tensor>?, rope: UnsafePointer<mla_tensor>?, isPlain: Bool,
    on device: Device = .cpu
  ) throws(MLAError) {
    let tensor = try CallTensor(cache, name: "kv_cache", on: device, rank: 2, or: 3)
    guard rope == nil || isPlain else {
      throw .invalid("k_pe_cache", "not NULL", "must be NULL but with MLA_CACHE_FORMAT_PLAIN")
    }
    self.cache = tensor
    self.rope = try CallTensor(
      rope, name: "k_pe_cache", on: device, rank: tensor.shape.count, mayBeNull: true)
    for i in 0..<tensor.shape.count - 1 {
      try self.rope?.requireSize((tensor.shape[i], "that of kv_cache"), ofDimension: i)
    }
  }

  private var blockSize: Int { cache.shape.count == 2 ? 1 : cache.shape[1] }

  /// For who looks for a token's block.
  func requireBlocksOfSlots() throws(MLAError) {
    guard blockSize > 0 else {
      throw .invalid("kv_cache.shape[1]", 0, "must be at least 1")
    }
  }
}
