import CMLAPrefill

/// Keys and their places in an index cache.
public struct IndexStoreArguments: @unchecked Sendable {
  /// [tokens, head_dim].
  let k: TensorView
  let cache: CacheSlots
  let transform: IndexTransform
  /// A place for each token, -1 for none.
  let slots: FixedArray<Int64>

  /// The caller's, checked against each other.
  public init(_ pointer: UnsafePointer<mla_index_store_args>?) throws(MLAError) {
    let raw = try readStruct(pointer, name: "args")
    let format = try IndexFormat(raw.format)
    let k = try CallTensor(raw.k, name: "k", on: .cpu, rank: 2)
    try k.requireAttentionType()
    try k.requireRange(1...Int(maximumHeadDim), ofDimension: 1)
    let tensor = try CallTensor(raw.index_cache, name: "index_cache", on: .cpu, rank: 2, or: 3)
    cache = try format.slots(of: tensor, as: k)
    transform = try IndexTransform(
      hadamard: raw.hadamard, scaleFormat: raw.scale_format, quantizes: format == .fp8Block,
      headDim: k.width)
    try Device.cpu.check(stream: raw.stream)
    try SlotMapping.check(raw.slot_mapping, count: raw.num_slots, rows: k.shape[0], of: "k")
    slots = try SlotMapping.read(
      raw.slot_mapping, count: raw.num_slots, of: cache, name: "index_cache")
    try tensor.requireOutput(apartFrom: k, nil)
    self.k = k.view
  }
}
