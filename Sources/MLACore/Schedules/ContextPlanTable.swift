import CMLAPrefill

/// A context plan as C reads it: one block of int32 that the chunks point into.
/// Never changes, so any number of threads may read it.
public final class ContextPlanTable: @unchecked Sendable {
  private let storage: UnsafeMutablePointer<Int32>
  private var chunks: [mla_context_plan_chunk] = []

  public init(_ plan: ContextChunkPlan) {
    let offsets = plan.request.queryStartLoc
    let size = plan.chunks.reduce(0) { $0 + 4 * $1.requests.count + 2 }
    storage = .allocate(capacity: max(size, 1))
    chunks.reserveCapacity(plan.chunks.count)
    var free = storage
    func store(_ values: some Collection<Int32>) -> UnsafePointer<Int32> {
      let start = free
      for value in values {
        free.initialize(to: value)
        free += 1
      }
      return UnsafePointer(start)
    }
    for (index, chunk) in plan.chunks.enumerated() {
      let lengths = plan.lengths(chunk)
      var row = mla_context_plan_chunk()
      row.index = Int32(index)
      row.request_begin = Int32(chunk.requests.lowerBound)
      row.request_end = Int32(chunk.requests.upperBound)
      row.is_continuation = chunk.isContinuation ? 1 : 0
      row.starts = store(plan.starts(chunk))
      row.seq_lens = store(lengths)
      row.cu_seq_lens = store(runningSums(lengths))
      if let offsets {
        let first = chunk.requests.lowerBound
        let base = offsets.begin(first)
        row.token_begin = Int32(base)
        row.token_end = Int32(offsets.begin(chunk.requests.upperBound))
        row.continuation_token_end = Int32(offsets.begin(first + 1))
        row.query_start_loc = store(
          (first...chunk.requests.upperBound).map { Int32(offsets.begin($0) - base) })
      }
      chunks.append(row)
    }
  }

  deinit { storage.deallocate() }

  public var count: Int { chunks.count }

  /// - Throws: if there is no such chunk.
  public func chunk(at index: Int32) throws(MLAError) -> mla_context_plan_chunk {
    guard index >= 0, index < chunks.count else {
      throw .invalid("index", index, "must be at least 0 and below \(chunks.count)")
    }
    return chunks[Int(index)]
  }
}

private func runningSums(_ lengths: [Int32]) -> [Int32] {
  var sums: [Int32] = [0]
  for length in lengths { sums.append(sums[sums.count - 1] + length) }
  return sums
}
