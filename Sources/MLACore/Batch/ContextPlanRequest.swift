import CMLAPrefill

/// What is to be packed into chunks, checked.
public struct ContextPlanRequest: Sendable {
  /// Cached tokens of each request.
  public var contextLens: FixedArray<Int32>
  /// Row offsets of the new tokens, if the caller gave them.
  public var queryStartLoc: RowOffsets?
  /// Most context rows in a chunk, at least `blockSize`.
  public var rowBudget: Int64
  /// Splits are at multiples of this.
  public var blockSize: Int32
  /// Most rows of a piece that is split off, at least `blockSize`; 0: `rowBudget`.
  public var maximumPiece: Int32

  init(
    contextLens: FixedArray<Int32>, queryStartLoc: RowOffsets, rowBudget: Int, blockSize: Int
  ) {
    self.contextLens = contextLens
    self.queryStartLoc = queryStartLoc
    self.rowBudget = Int64(rowBudget)
    self.blockSize = Int32(blockSize)
    maximumPiece = 0
  }

  public init(_ pointer: UnsafePointer<mla_context_plan_args>?) throws(MLAError) {
    let args = try readStruct(pointer, name: "args", minimumSize: firstVersionSize)
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
    rowBudget = args.row_budget
    blockSize = args.block_size
    maximumPiece = args.max_context_chunk
    contextLens = try Self.lengths(args.context_lens, count: Int(args.num_requests))
    queryStartLoc =
      if let offsets = args.query_start_loc {
        try RowOffsets(
          offsets, requests: args.num_requests, countField: "args.num_requests",
          field: "args.query_start_loc")
      } else {
        nil
      }
  }

  private static func lengths(_ pointer: UnsafePointer<Int32>?, count: Int) throws(MLAError)
    -> FixedArray<Int32>
  {
    guard count > 0 else { return FixedArray() }
    guard let pointer else { throw .null("args.context_lens") }
    let lengths = try FixedArray(
      copying: UnsafeBufferPointer(start: pointer, count: count), for: "context_lens of a batch")
    if let index = lengths.firstIndex(where: { $0 < 0 }) {
      throw .invalid("args.context_lens[\(index)]", lengths[index], "must not be negative")
    }
    return lengths
  }
}

/// Far above any engine's batch; a larger number is garbage.
public let maximumRequests: Int32 = 1 << 20
private let firstVersionSize = 40
