import CMLAPrefill

// The caller's batches, checked and copied.

/// Far above any engine's batch; a larger number is garbage.
public let maximumRequests: Int32 = 1 << 20

extension RowOffsets {
  /// - Parameters:
  ///   - countField: the field that `requests` came from, for messages.
  ///   - field: the field that `pointer` came from.
  init(
    _ pointer: UnsafePointer<Int32>?, requests: Int32, countField: String, field: String
  ) throws(MLAError) {
    try checkRange(countField, requests, 0...maximumRequests)
    guard let pointer else { throw .null(field) }
    // Copied, then checked: what the caller does to its own meanwhile changes nothing.
    let offsets = try FixedArray(
      copying: UnsafeBufferPointer(start: pointer, count: Int(requests) + 1),
      for: "row offsets of a batch")
    try Self.check(offsets, field: field)
    self.init(checked: offsets)
  }

  /// - Parameter offsets: at least one.
  static func check(_ offsets: FixedArray<Int32>, field: @autoclosure () -> String)
    throws(MLAError)
  {
    guard offsets[0] == 0 else { throw .invalid("\(field())[0]", offsets[0], "must be 0") }
    for i in 1..<offsets.count where offsets[i] < offsets[i - 1] {
      throw .invalid(
        "\(field())[\(i)]", offsets[i],
        "must not be below the offset before it, \(offsets[i - 1])")
    }
  }
}

extension LayerBatch {
  init(_ raw: mla_layer_forward_args, _ config: BackendConfig) throws(MLAError) {
    let rows = try RowOffsets(
      raw.query_start_loc, requests: raw.num_requests, countField: "num_requests",
      field: "query_start_loc")
    try BatchSize.check(rows, config, requestsField: "num_requests", rowsField: "query_start_loc")
    let contextOnly = UInt64(MLA_LAYER_CONTEXT_ONLY)
    guard raw.flags & ~contextOnly == 0 else {
      throw .invalid("flags", raw.flags, "must be bits of MLA_LAYER_*")
    }
    try checkRange("new_tokens_cached", raw.new_tokens_cached, 0...1)
    guard raw.new_tokens_cached == 0 || raw.flags & contextOnly == 0 else {
      throw .invalid("new_tokens_cached", 1, "must be 0 with MLA_LAYER_CONTEXT_ONLY")
    }
    try self.init(
      queryStartLoc: rows,
      contextLens: raw.context_lens == nil
        ? FixedArray()
        : readContextLens(raw.context_lens, count: rows.requestCount, field: "context_lens"),
      contextOnly: raw.flags & contextOnly != 0, newTokensCached: raw.new_tokens_cached != 0)
  }
}

extension ContextPlanRequest {
  public init(_ pointer: UnsafePointer<mla_context_plan_args>?) throws(MLAError) {
    let args = try readStruct(pointer, name: "args")
    try checkRange("args.num_requests", args.num_requests, 0...maximumRequests)
    guard args.block_size >= 1 else {
      throw .invalid("args.block_size", args.block_size, "must be at least 1")
    }
    guard args.row_budget >= Int64(args.block_size) else {
      throw .invalid(
        "args.row_budget", args.row_budget, "must be at least block_size (\(args.block_size))")
    }
    guard args.max_context_chunk == 0 || args.max_context_chunk >= args.block_size else {
      throw .invalid(
        "args.max_context_chunk", args.max_context_chunk,
        "must be 0 or at least block_size (\(args.block_size))")
    }
    let contextLens = try readContextLens(
      args.context_lens, count: Int(args.num_requests), field: "args.context_lens")
    let queryStartLoc = try args.query_start_loc.map { offsets throws(MLAError) in
      try RowOffsets(
        offsets, requests: args.num_requests, countField: "args.num_requests",
        field: "args.query_start_loc")
    }
    self.init(
      contextLens: contextLens, queryStartLoc: queryStartLoc, rowBudget: args.row_budget,
      blockSize: args.block_size, maximumPiece: args.max_context_chunk)
  }
}

func readContextLens(_ pointer: UnsafePointer<Int32>?, count: Int, field: String)
  throws(MLAError) -> FixedArray<Int32>
{
  guard count > 0 else { return FixedArray() }
  guard let pointer else { throw .null(field) }
  let lengths = try FixedArray(
    copying: UnsafeBufferPointer(start: pointer, count: count), for: "context_lens of a batch")
  if let i = lengths.firstIndex(where: { $0 < 0 }) {
    throw .invalid("\(field)[\(i)]", lengths[i], "must not be negative")
  }
  return lengths
}
