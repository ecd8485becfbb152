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
    let requests = 0..<offsets.requestCount
    if requests.contains(where: { offsets.count($0) == 0 }), offsets.rowCount > 0 {
      let lengths = description(offsets)
      throw .invalid(
        "metadata.query_start_loc", "query lengths \(lengths)",
        "TRTLLM ragged prefill contains mixed active and empty query rows: query_lens=\(lengths)")
    }
  }

  /// As vLLM writes a list, cut where nobody would read on.
  private func description(_ offsets: RowOffsets) -> String {
    let shown = (0..<min(offsets.requestCount, 64)).map { String(offsets.count($0)) }
    let rest = offsets.requestCount > shown.count ? ["..."] : []
    return "[" + (shown + rest).joined(separator: ", ") + "]"
  }

  func check(_ chunk: ContextChunk) throws(MLAError) {
    for (i, span) in chunk.spans.enumerated() where span.queryCount == 0 || span.keyCount == 0 {
      throw .invalid(
        "chunk request \(i)", "\(span.queryCount) query and \(span.keyCount) KV rows",
        "TRTLLM ragged context prefill contains an empty query or KV row")
    }
  }
}
