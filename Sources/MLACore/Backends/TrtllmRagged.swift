import CMLAPrefill

/// TRTLLM_RAGGED (vLLM: trtllm_ragged.TrtllmRaggedPrefillBackend): the tile
/// schedule in a workspace that the caller owns, and vLLM's demands on a batch:
/// a ragged kernel takes no empty row among active ones. Where all are empty, rows of
/// padding are all there is, and no kernel runs that would leave them as they are.
struct TrtllmRaggedContract: NativeContract {
  var answersEmptyBatches: Bool { true }

  func check(_ metadata: PrefillMetadata) throws(MLAError) {
    let offsets = metadata.queryStartLoc
    guard offsets.requestCount > 0 else {
      throw .invalid(
        "metadata.num_requests", 0,
        "TRTLLM ragged prefill requires a non-empty 1D query-length tensor")
    }
    let lengths = (0..<offsets.requestCount).map(offsets.count)
    if lengths.contains(0), lengths.contains(where: { $0 > 0 }) {
      throw .invalid(
        "metadata.query_start_loc", "query lengths \(lengths)",
        "TRTLLM ragged prefill contains mixed active and empty query rows: query_lens=\(lengths)")
    }
  }

  func check(_ chunk: ContextChunk) throws(MLAError) {
    for (i, span) in chunk.spans.enumerated() where span.queryCount == 0 || span.keyCount == 0 {
      throw .invalid(
        "chunk request \(i)", "\(span.queryCount) query and \(span.keyCount) KV rows",
        "TRTLLM ragged context prefill contains an empty query or KV row")
    }
  }
}
