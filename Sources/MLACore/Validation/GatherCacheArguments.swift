import CMLAPrefill

/// Tokens of a paged cache and the rows that they go to, on the device of the cache.
public struct GatherCacheArguments: @unchecked Sendable {
  /// Which tokens, of each request.
  enum Tokens {
    /// There are no requests.
    case none
    /// And the rows of each request.
    case onCPU(PagedCache, RowOffsets)
    case onDevice(DeviceTokens)
  }

  /// Which only the device can read.
  struct DeviceTokens {
    let slots: CacheSlots
    let table: BlockTable
    let requestCount: Int32
    let cuSeqLens: UnsafePointer<Int32>?
    /// nil: requests begin where their blocks do.
    let seqStarts: UnsafePointer<Int32>?
  }

  /// [rows, width] each, of one type.
  let latents: TensorView
  let rope: TensorView
  let tokens: Tokens
  let device: Device
  /// The device's; nil: the default one.
  let stream: UnsafeMutableRawPointer?

  /// The caller's, checked against each other.
  public init(_ pointer: UnsafePointer<mla_gather_cache_args>?) throws(MLAError) {
    let raw = try readStruct(pointer, name: "args")
    device = try Device(of: raw.kv_cache, name: "kv_cache")
    let tensors = try GatheredTensors(raw, on: device)
    try device.check(stream: raw.stream)
    stream = raw.stream
    let format = try CacheFormat(
      raw.cache_format, tensors.stored.cache.type, scale: raw.cache_scale, structName: "")
    let rank = try tensors.rank(in: format)
    (latents, rope) = tensors.parts(rank: rank)
    let slots = CacheSlots(tensors.stored, format, rank: rank)
    try checkRange("num_requests", raw.num_requests, 0...maximumRequests)
    tokens =
      raw.num_requests == 0
      ? .none
      : device == .cpu
        ? try Self.tokens(raw, of: slots, rowsOf: tensors.dst)
        : try Self.deviceTokens(raw, of: slots)
  }

  private static func tokens(
    _ raw: mla_gather_cache_args, of slots: CacheSlots, rowsOf dst: CallTensor
  ) throws(MLAError) -> Tokens {
    let table = try BlockTable(raw, blockCount: slots.blockCount)
    let offsets = try RowOffsets(
      raw.cu_seq_lens, requests: raw.num_requests, countField: "num_requests",
      field: "cu_seq_lens")
    try dst.requireRows(of: offsets, "cu_seq_lens")
    return .onCPU(
      try PagedCache(
        slots, table, GatheredTokens(offsets: offsets), starts: raw.seq_starts,
        startsField: "seq_starts"),
      offsets)
  }

  private static func deviceTokens(
    _ raw: mla_gather_cache_args, of slots: CacheSlots
  ) throws(MLAError) -> Tokens {
    let table = try BlockTable(raw, blockCount: slots.blockCount)
    guard raw.cu_seq_lens != nil else { throw .null("cu_seq_lens") }
    try Device.requireAligned(raw.cu_seq_lens, "cu_seq_lens")
    try Device.requireAligned(raw.seq_starts, "seq_starts")
    try Device.requireAligned(raw.block_table, "block_table")
    return .onDevice(
      DeviceTokens(
        slots: slots, table: table, requestCount: raw.num_requests, cuSeqLens: raw.cu_seq_lens,
        seqStarts: raw.seq_starts))
  }
}

/// Row i of the table is request i's.
extension mla_gather_cache_args: BlockTableFields {
  var block_table_rows: UnsafePointer<Int32>! { nil }
  var num_table_rows: Int64 { 0 }
}

private struct GatheredTokens: CachedTokens {
  let offsets: RowOffsets

  var requests: Range<Int> { 0..<offsets.requestCount }
  func cachedTokens(_ request: Int) -> Int { offsets.count(request) }
  func cachedTokensField(_ request: Int) -> String {
    "cu_seq_lens[\(request + 1)] - cu_seq_lens[\(request)]"
  }
}

private struct GatheredTensors {
  let stored: CacheTensors
  /// With the rotary parts behind the latents where those have no tensor of their own.
  let dst: CallTensor
  let rope: CallTensor?

  init(_ raw: mla_gather_cache_args, on device: Device) throws(MLAError) {
    let isPlain = raw.cache_format == Int32(MLA_CACHE_FORMAT_PLAIN)
    stored = try CacheTensors(raw.kv_cache, rope: raw.k_pe_cache, isPlain: isPlain, on: device)
    dst = try CallTensor(raw.dst, name: "dst", on: device, rank: 2)
    rope = try CallTensor(raw.k_pe, name: "k_pe", on: device, rank: 2, mayBeNull: true)
  }

  /// Of latents, once all fit together.
  func rank(in format: CacheFormat) throws(MLAError) -> Int {
    try stored.requireBlocksOfSlots()
    try dst.requireAttentionType()
    try rope?.requireType(dst.type, "as dst")
    try rope?.requireSize((dst.shape[0], "the rows of dst"), ofDimension: 0)
    let rank = try checkedRank(format)
    try dst.requireOutput(apartFrom: stored.cache, stored.rope, rope)
    try rope?.requireOutput(apartFrom: stored.cache, stored.rope)
    return rank
  }

  private func checkedRank(_ format: CacheFormat) throws(MLAError) -> Int {
    switch format {
    case .plain:
      if let ropes = stored.rope {
        return try require(
          rank: stored.cache.width, rope: ropes.width, "as kv_cache and k_pe_cache have it")
      }
      // Whole rows need no more to be known of them.
      guard let rope else {
        try dst.requireWidth((stored.cache.width, "the width of kv_cache, k_pe being NULL"))
        return dst.width
      }
      try rope.requireWidth(
        (stored.cache.width - dst.width, "the width of kv_cache less that of dst"))
      return dst.width
    case .fp8DsMLA:
      try DsMLASlot.check(stored.cache)
      let ropeWidth = rope?.width ?? dst.width - DsMLASlot.rank
      return try require(
        rank: DsMLASlot.rank, rope: ropeWidth == 0 ? 0 : DsMLASlot.rope,
        "with MLA_CACHE_FORMAT_FP8_DS_MLA")
    }
  }

  private func require(rank: Int, rope ropeWidth: Int, _ rule: String) throws(MLAError) -> Int {
    try dst.requireWidth((rope == nil ? rank + ropeWidth : rank, rule))
    try rope?.requireWidth((ropeWidth, rule))
    return rank
  }

  func parts(rank: Int) -> (latents: TensorView, rope: TensorView) {
    (
      dst.view.narrowed(1, to: 0..<rank),
      rope?.view ?? dst.view.narrowed(1, to: rank..<dst.width)
    )
  }
}
