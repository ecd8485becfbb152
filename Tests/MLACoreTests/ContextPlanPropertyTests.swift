import MLATestSupport
import XCTest

@testable import MLACore

/// Every promise of mla_plan_context_chunks, over seeded random batches.
final class ContextPlanPropertyTests: XCTestCase {
  func testRandomBatches() throws {
    var random = SplitMix64(seed: 0x9A11)
    for case_ in 0..<2_000 {
      let arguments = randomArguments(&random)
      let chunks = try arguments.plan().planned()
      let problems =
        coverage(chunks, arguments) + sizes(chunks, arguments) + offsets(chunks, arguments)
        + packing(chunks, arguments)
      XCTAssertEqual(problems, [], "case \(case_): \(arguments)")
      guard problems.isEmpty else { return }
    }
  }

  private func randomArguments(_ random: inout SplitMix64) -> PlanArguments {
    let block = Int32(random.pick([1, 2, 3, 16, 64, 100]))
    let budget = Int64(block) * Int64(random.int(1...12)) + Int64(random.int(0...Int(block)))
    let longest = Int(budget) * random.pick([1, 1, 3, 10])
    let count = random.int(0...9)
    let empty = random.pick([0.0, 0.3, 0.9])
    let lens = (0..<count).map { _ in
      random.chance(empty) ? 0 : Int32(random.int(0...longest))
    }
    var starts: [Int32] = [0]
    for _ in 0..<count { starts.append(starts[starts.count - 1] + Int32(random.int(0...20))) }
    let piece = random.chance(0.3) ? block * Int32(random.int(1...15)) + random.pick([0, block - 1]) : 0
    return PlanArguments(
      contextLens: lens, queryStartLoc: random.chance(0.8) ? starts : nil, rowBudget: budget,
      blockSize: block, maxContextChunk: piece)
  }

  /// Each context row in exactly one chunk, in order; no request without any.
  private func coverage(_ chunks: [PlannedChunk], _ arguments: PlanArguments) -> [String] {
    var covered = [Int](repeating: 0, count: arguments.contextLens.count)
    var problems: [String] = []
    var last = 0
    for chunk in chunks {
      if chunk.requests.isEmpty { problems.append("empty chunk") }
      if chunk.requests.lowerBound < last { problems.append("requests out of order") }
      for (place, request) in chunk.requests.enumerated() {
        if chunk.lengths[place] <= 0 { problems.append("request without rows") }
        if chunk.starts[place] != covered[request] { problems.append("gap or overlap") }
        covered[request] += chunk.lengths[place]
      }
      last = chunk.requests.upperBound - 1
    }
    if covered != arguments.contextLens.map(Int.init) { problems.append("rows left out") }
    return problems
  }

  /// Budget, piece limit, block boundaries; only the first may be a continuation.
  private func sizes(_ chunks: [PlannedChunk], _ arguments: PlanArguments) -> [String] {
    var problems: [String] = []
    for chunk in chunks {
      if chunk.lengths.reduce(0, +) > Int(arguments.rowBudget) { problems.append("over budget") }
      if chunk.isContinuation != (chunk.starts[0] > 0) { problems.append("wrong continuation") }
      if chunk.starts.dropFirst().contains(where: { $0 != 0 }) {
        problems.append("continuation inside a chunk")
      }
      if chunk.starts.contains(where: { $0 % Int(arguments.blockSize) != 0 }) {
        problems.append("split inside a block")
      }
      let last = chunk.requests.upperBound - 1
      let isCut =
        chunk.starts.last! + chunk.lengths.last! < Int(arguments.contextLens[last])
      if isCut, chunk.lengths.last! > largestPiece(arguments) {
        problems.append("piece too large")
      }
    }
    return problems
  }

  private func offsets(_ chunks: [PlannedChunk], _ arguments: PlanArguments) -> [String] {
    var problems: [String] = []
    for chunk in chunks {
      let sums = chunk.lengths.reduce(into: [0]) { $0.append($0.last! + $1) }
      if chunk.cuSeqLens != sums { problems.append("wrong cu_seq_lens") }
      guard let starts = arguments.queryStartLoc?.map(Int.init) else {
        if chunk.queryStartLoc != nil || chunk.tokens != 0..<0 || chunk.continuationEnd != 0 {
          problems.append("tokens from nowhere")
        }
        continue
      }
      let begin = starts[chunk.requests.lowerBound]
      if chunk.tokens != begin..<starts[chunk.requests.upperBound] {
        problems.append("wrong tokens")
      }
      if chunk.continuationEnd != starts[chunk.requests.lowerBound + 1] {
        problems.append("wrong continuation_token_end")
      }
      let expected = (chunk.requests.lowerBound...chunk.requests.upperBound).map { starts[$0] - begin }
      if chunk.queryStartLoc != expected { problems.append("wrong query_start_loc") }
    }
    return problems
  }

  /// A chunk ends only where nothing more may go in: at a request without
  /// context, or where not even another block of the next one fits.
  private func packing(_ chunks: [PlannedChunk], _ arguments: PlanArguments) -> [String] {
    let block = Int(arguments.blockSize)
    var problems: [String] = []
    for (chunk, next) in zip(chunks, chunks.dropFirst()) {
      let free = Int(arguments.rowBudget) - chunk.lengths.reduce(0, +)
      let first = next.requests.lowerBound
      let length = Int(arguments.contextLens[first])
      if next.isContinuation {
        let left = length - next.starts[0]
        if left <= free { problems.append("split although the rest fits") }
        let grown = chunk.lengths.last! + block
        if block <= free, left > block, grown <= largestPiece(arguments) {
          problems.append("piece could be larger")
        }
      } else if first == chunk.requests.upperBound {
        if length <= free { problems.append("request fits whole") }
        if block <= free, length > block { problems.append("a block of the request fits") }
      }
    }
    return problems
  }

  private func largestPiece(_ arguments: PlanArguments) -> Int {
    let limit = arguments.maxContextChunk == 0 ? Int(arguments.rowBudget) : Int(arguments.maxContextChunk)
    return limit / Int(arguments.blockSize) * Int(arguments.blockSize)
  }
}
