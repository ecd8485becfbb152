import CMLAPrefill

/// Tokens and their places in a paged cache, on the device of the cache.
public struct ConcatAndCacheArguments: @unchecked Sendable {
  /// A place for each token, -1 for none.
  enum Slots {
    case onCPU(FixedArray<Int64>)
    /// Which only the device can read.
    case onDevice(UnsafePointer<Int64>?, count: Int)
  }

  let latents: TensorView
  /// nil where the cache holds no rotary part.
  let rope: TensorView?
  let cache: CacheSlots
  let slots: Slots
  let device: Device
  /// The device's; nil: the default one.
  let stream: UnsafeMutableRawPointer?

  /// The caller's, checked against each other.
  public init(_ pointer: UnsafePointer<mla_concat_and_cache_args>?) throws(MLAError) {
    let raw = try readStruct(pointer, name: "args")
    device = try Device(of: raw.kv_cache, name: "kv_cache")
    let tensors = try CachedTensors(raw, on: device)
    try device.check(stream: raw.stream)
    stream = raw.stream
    let format = try CacheFormat(
      raw.cache_format, tensors.stored.cache.type, scale: raw.cache_scale, structName: "")
    if case .plain(.float8E4M3, let scale) = format {
      try checkQuantizingScale("cache_scale", scale)
    }
    (latents, rope) = (tensors.latents.view, tensors.rope?.view)
    try tensors.check(format)
    cache = CacheSlots(tensors.stored, format, rank: latents.shape[1])
    try SlotMapping.check(
      raw.slot_mapping, count: raw.num_slots, rows: latents.shape[0], of: "kv_c_normed")
    slots =
      device == .cpu
      ? .onCPU(
        try SlotMapping.read(raw.slot_mapping, count: raw.num_slots, of: cache, name: "kv_cache"))
      : try Self.deviceSlots(raw)
  }

  private static func deviceSlots(_ raw: mla_concat_and_cache_args) throws(MLAError) -> Slots {
    if raw.num_slots > 0 { try Device.requireAligned(raw.slot_mapping, "slot_mapping") }
    return .onDevice(raw.slot_mapping, count: Int(raw.num_slots))
  }
}

private struct CachedTensors {
  let latents: CallTensor
  let rope: CallTensor?
  let stored: CacheTensors

  init(_ raw: mla_concat_and_cache_args, on device: Device) throws(MLAError) {
    latents = try CallTensor(raw.kv_c_normed, name: "kv_c_normed", on: device, rank: 2)
    let isPlain = raw.cache_format == Int32(MLA_CACHE_FORMAT_PLAIN)
    stored = try CacheTensors(raw.kv_cache, rope: raw.k_pe_cache, isPlain: isPlain, on: device)
    let needsRope = isPlain && (stored.rope?.width ?? stored.cache.width - latents.shape[1]) != 0
    rope = try CallTensor(raw.k_pe, name: "k_pe", on: device, rank: 2, mayBeNull: !needsRope)
  }

  func check(_ format: CacheFormat) throws(MLAError) {
    try latents.requireAttentionType()
    try rope?.requireType(latents.type, "as kv_c_normed")
    let tokens = (latents.shape[0], "the rows of kv_c_normed")
    let rank = latents.shape[1]
    switch format {
    case .plain:
      if let ropes = stored.rope {
        try stored.cache.requireWidth((rank, "the width of kv_c_normed, beside k_pe_cache"))
        try rope?.requireShape(tokens, (ropes.width, "the width of k_pe_cache"))
      } else {
        try rope?.requireShape(
          tokens,
          (stored.cache.width - rank, "the width of kv_cache less that of kv_c_normed"))
      }
    case .fp8DsMLA:
      try DsMLASlot.check(stored.cache)
      try latents.requireShape(tokens, (DsMLASlot.rank, "with MLA_CACHE_FORMAT_FP8_DS_MLA"))
      let width = rope?.shape[1] == 0 ? 0 : DsMLASlot.rope
      try rope?.requireShape(tokens, (width, "or 0, with MLA_CACHE_FORMAT_FP8_DS_MLA"))
    }
    try stored.cache.requireOutput(apartFrom: latents, rope, stored.rope)
    try stored.rope?.requireOutput(apartFrom: latents, rope)
  }
}
