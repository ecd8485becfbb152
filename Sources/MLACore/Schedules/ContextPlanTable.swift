import CMLAPrefill

/// A context plan as C reads it: one block of int32 that the chunks point into.
/// Never changes, so any number of threads may read it.
public final class ContextPlanTable: @unchecked Sendable {
  private var storage: FixedArray<Int32>
  private var chunks: FixedArray<mla_context_plan_chunk>

  public init(_ plan: ContextChunkPlan) throws(MLAError) {
    let size = plan.chunks.reduce(0) { $0 + 4 * $1.requests.count + 2 }
    storage = try FixedArray(capacity: size, for: "arrays of a context plan")
    chunks = try FixedArray(capacity: plan.chunks.count, for: "chunks of a context plan")
    for (index, chunk) in plan.chunks.enumerated() { append(chunk, index, of: plan) }
  }

  private func append(_ chunk: ContextChunkPlan.Chunk, _ index: Int, of plan: ContextChunkPlan) {
    var row = mla_context_plan_chunk()
    row.index = Int32(index)
    row.request_begin = Int32(chunk.requests.lowerBound)
    row.request_end = Int32(chunk.requests.upperBound)
    row.is_continuation = chunk.isContinuation ? 1 : 0
    row.starts = next
    for request in chunk.requests { storage.append(plan.start(request, in: chunk)) }
    row.seq_lens = next
    for request in chunk.requests { storage.append(plan.length(request, in: chunk)) }
    row.cu_seq_lens = next
    storage.append(0)
    for request in chunk.requests {
      storage.append(storage[storage.count - 1] + plan.length(request, in: chunk))
    }
    if let offsets = plan.request.queryStartLoc {
      let first = chunk.requests.lowerBound
      let base = offsets.begin(first)
      row.token_begin = Int32(base)
      row.token_end = Int32(offsets.begin(chunk.requests.upperBound))
      row.continuation_token_end = Int32(offsets.begin(first + 1))
      row.query_start_loc = next
      for request in first...chunk.requests.upperBound {
        storage.append(Int32(offsets.begin(request) - base))
      }
    }
    chunks.append(row)
  }

  /// Where the next number will lie.
  private var next: UnsafePointer<Int32> { storage.pointer + storage.count }

  public var count: Int { chunks.count }

  /// - Throws: if there is no such chunk.
  public func chunk(at index: Int32) throws(MLAError) -> mla_context_plan_chunk {
    guard index >= 0, index < chunks.count else {
      throw .invalid("index", index, "must be at least 0 and below \(chunks.count)")
    }
    return chunks[Int(index)]
  }
}
