import CMLAPrefill
import MLATestSupport
import XCTest

@testable import MLACore

/// What a caller of mla_plan_context_chunks hands in, with arrays that live as
/// long as the call.
struct PlanArguments {
  var contextLens: [Int32]
  var queryStartLoc: [Int32]?
  var rowBudget: Int64
  var blockSize: Int32
  var maxContextChunk: Int32 = 0

  func withArgs<Result>(
    _ spoil: (inout mla_context_plan_args) -> Void = { _ in },
    _ body: (UnsafePointer<mla_context_plan_args>) throws -> Result
  ) rethrows -> Result {
    try contextLens.withUnsafeBufferPointer { lens in
      try (queryStartLoc ?? []).withUnsafeBufferPointer { offsets in
        var args = mla_context_plan_args()
        args.struct_size = UInt32(MemoryLayout<mla_context_plan_args>.size)
        args.num_requests = Int32(lens.count)
        args.context_lens = lens.baseAddress
        args.query_start_loc = queryStartLoc == nil ? nil : offsets.baseAddress
        args.row_budget = rowBudget
        args.block_size = blockSize
        args.max_context_chunk = maxContextChunk
        spoil(&args)
        return try body(&args)
      }
    }
  }

  func plan() throws -> ContextPlanTable {
    try withArgs { try ContextPlanTable(ContextChunkPlan(ContextPlanRequest($0))) }
  }
}

/// A planned chunk as its reader sees it.
struct PlannedChunk: Equatable {
  var requests: Range<Int>
  var tokens: Range<Int>
  var isContinuation: Bool
  var continuationEnd: Int
  var starts: [Int]
  var lengths: [Int]
  var queryStartLoc: [Int]?
  var cuSeqLens: [Int]

  init(_ chunk: mla_context_plan_chunk) {
    requests = Int(chunk.request_begin)..<Int(chunk.request_end)
    tokens = Int(chunk.token_begin)..<Int(chunk.token_end)
    isContinuation = chunk.is_continuation != 0
    continuationEnd = Int(chunk.continuation_token_end)
    let count = requests.count
    func read(_ pointer: UnsafePointer<Int32>, _ count: Int) -> [Int] {
      UnsafeBufferPointer(start: pointer, count: count).map(Int.init)
    }
    starts = read(chunk.starts, count)
    lengths = read(chunk.seq_lens, count)
    cuSeqLens = read(chunk.cu_seq_lens, count + 1)
    queryStartLoc = chunk.query_start_loc.map { read($0, count + 1) }
  }
}

extension ContextPlanTable {
  func planned() throws -> [PlannedChunk] {
    try (0..<count).map { index in
      let chunk = try chunk(at: Int32(index))
      XCTAssertEqual(chunk.index, Int32(index))
      return PlannedChunk(chunk)
    }
  }
}

final class ContextPlanTests: XCTestCase {
  /// Pieces of a plan, "request:start+length" each.
  private func pieces(_ arguments: PlanArguments) throws -> [[String]] {
    try arguments.plan().planned().map { chunk in
      chunk.requests.enumerated().map { "\($1):\(chunk.starts[$0])+\(chunk.lengths[$0])" }
    }
  }

  private func arguments(
    _ lens: [Int32], budget: Int64, block: Int32, piece: Int32 = 0
  ) -> PlanArguments {
    PlanArguments(
      contextLens: lens, rowBudget: budget, blockSize: block, maxContextChunk: piece)
  }

  func testNothingToPlan() throws {
    XCTAssertEqual(try pieces(arguments([], budget: 1, block: 1)), [])
    XCTAssertEqual(try pieces(arguments([0, 0, 0], budget: 16, block: 16)), [])
  }

  func testEverythingInOneChunk() throws {
    XCTAssertEqual(
      try pieces(arguments([5, 11, 16], budget: 32, block: 16)), [["0:0+5", "1:0+11", "2:0+16"]])
  }

  func testLongContextIsSplitAtBlocks() throws {
    XCTAssertEqual(
      try pieces(arguments([100], budget: 50, block: 16)), [["0:0+48"], ["0:48+48"], ["0:96+4"]])
    // The last block never goes ahead alone: a row is left for the next chunk.
    XCTAssertEqual(
      try pieces(arguments([20, 32], budget: 52, block: 16)), [["0:0+20", "1:0+32"]])
    XCTAssertEqual(
      try pieces(arguments([20, 33], budget: 52, block: 16)), [["0:0+20", "1:0+32"], ["1:32+1"]])
    XCTAssertEqual(
      try pieces(arguments([21, 32], budget: 52, block: 16)), [["0:0+21", "1:0+16"], ["1:16+16"]])
  }

  func testRequestThatHasNoRoomForABlockWaits() throws {
    XCTAssertEqual(
      try pieces(arguments([40, 20], budget: 48, block: 16)), [["0:0+40"], ["1:0+20"]])
  }

  func testContinuationSharesItsChunkWithTheNextRequests() throws {
    XCTAssertEqual(
      try pieces(arguments([70, 10, 30], budget: 64, block: 16)),
      [["0:0+64"], ["0:64+6", "1:0+10", "2:0+30"]])
  }

  func testRequestWithoutContextEndsTheChunk() throws {
    XCTAssertEqual(
      try pieces(arguments([0, 7, 0, 0, 3, 2], budget: 64, block: 16)),
      [["1:0+7"], ["4:0+3", "5:0+2"]])
  }

  func testPieceLimitHoldsForWhatIsSplitOffOnly() throws {
    XCTAssertEqual(
      try pieces(arguments([100], budget: 64, block: 16, piece: 40)),
      [["0:0+32"], ["0:32+32"], ["0:64+36"]])
    XCTAssertEqual(try pieces(arguments([60], budget: 64, block: 16, piece: 16)), [["0:0+60"]])
  }

  func testOffsetsAreThoseOfTheChunk() throws {
    var arguments = arguments([100, 0, 7, 40], budget: 64, block: 16)
    arguments.queryStartLoc = [0, 3, 5, 5, 9]
    let chunks = try arguments.plan().planned()
    XCTAssertEqual(chunks.map(\.tokens), [0..<3, 0..<3, 5..<9])
    XCTAssertEqual(chunks.map(\.queryStartLoc), [[0, 3], [0, 3], [0, 0, 4]])
    XCTAssertEqual(chunks.map(\.cuSeqLens), [[0, 64], [0, 36], [0, 7, 47]])
    XCTAssertEqual(chunks.map(\.isContinuation), [false, true, false])
    XCTAssertEqual(chunks.map(\.continuationEnd), [3, 3, 5])
  }

  func testOffsetsAtTheEndOfInt32() throws {
    let huge = arguments([.max, .max, 5], budget: .max, block: 16)
    let chunks = try huge.plan().planned()
    XCTAssertEqual(chunks.map(\.cuSeqLens), [[0, Int(Int32.max)], [0, Int(Int32.max)], [0, 5]])
    XCTAssertEqual(
      try pieces(arguments([.max], budget: 1 << 30, block: 1)),
      [["0:0+1073741824"], ["0:1073741824+1073741823"]])
  }

  func testMalformedArgumentsAreNamed() {
    let good = PlanArguments(
      contextLens: [4, 5], queryStartLoc: [0, 1, 2], rowBudget: 16, blockSize: 16)
    let cases: [(String, (inout mla_context_plan_args) -> Void)] = [
      ("args.num_requests = -1: ", { $0.num_requests = -1 }),
      ("args.num_requests = 2147483647: ", { $0.num_requests = .max }),
      ("args.context_lens = NULL: ", { $0.context_lens = nil }),
      ("args.block_size = 0: ", { $0.block_size = 0 }),
      ("args.block_size = -16: ", { $0.block_size = -16 }),
      ("args.row_budget = 15: must be at least block_size (16)", { $0.row_budget = 15 }),
      ("args.row_budget = -9223372036854775808: ", { $0.row_budget = .min }),
      ("args.max_context_chunk = 15: ", { $0.max_context_chunk = 15 }),
      ("args.max_context_chunk = -1: ", { $0.max_context_chunk = -1 }),
      ("args.struct_size = 39: ", { $0.struct_size = 39 }),
    ]
    func message(_ arguments: PlanArguments, _ spoil: (inout mla_context_plan_args) -> Void = { _ in })
      -> String
    {
      mlaError { try arguments.withArgs(spoil) { try ContextPlanRequest($0) } }?.message ?? ""
    }
    for (start, spoil) in cases { XCTAssertTrue(message(good, spoil).hasPrefix(start), start) }
    var bad = good
    bad.contextLens = [4, -5]
    XCTAssertEqual(message(bad), "args.context_lens[1] = -5: must not be negative")
    bad = good
    bad.queryStartLoc = [1, 1, 2]
    XCTAssertEqual(message(bad), "args.query_start_loc[0] = 1: must be 0")
    bad.queryStartLoc = [0, 3, 2]
    XCTAssertEqual(
      message(bad),
      "args.query_start_loc[2] = 2: must not be below the offset before it, 3")
    XCTAssertEqual(
      mlaError { try ContextPlanRequest(nil) }?.message, "args = NULL: must not be NULL")
  }

  func testTooManyChunksAreRefused() {
    XCTAssertEqual(
      mlaError { try self.arguments([.max], budget: 1, block: 1).plan() },
      MLAError(
        MLA_ERROR_INVALID_ARGUMENT,
        "args.row_budget = 1: too small for these context_lens: there would be more than "
          + "1048576 chunks"))
    XCTAssertEqual(try arguments([1 << 20], budget: 1, block: 1).plan().count, 1 << 20)
    XCTAssertNotNil(
      mlaError { try self.arguments([(1 << 20) + 1], budget: 1, block: 1).plan() }, "one more")
  }

  func testChunksThatAreNotThere() throws {
    let plan = try arguments([5], budget: 16, block: 16).plan()
    for index in [-1, 1, .max, .min] as [Int32] {
      XCTAssertEqual(
        mlaError { try plan.chunk(at: index) }?.message,
        "index = \(index): must be at least 0 and below 1")
    }
  }
}
