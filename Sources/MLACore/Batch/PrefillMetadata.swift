import CMLAPrefill

/// A batch, checked and copied (vLLM: MLACommonPrefillMetadata).
public struct PrefillMetadata: Sendable {
  public let queryStartLoc: RowOffsets
  public let chunks: ContextChunks

  public init(_ pointer: UnsafePointer<mla_prefill_metadata>?) throws(MLAError) {
    let raw = try readStruct(pointer, name: "metadata", minimumSize: 32)
    try checkReserved("metadata", raw.reserved)
    queryStartLoc = try RowOffsets(
      raw.query_start_loc, requests: raw.num_requests, countField: "metadata.num_requests",
      field: "metadata.query_start_loc")
    try checkRange("metadata.num_chunks", raw.num_chunks, 0...maximumRequests)
    chunks = try ContextChunks(raw.chunks, count: Int(raw.num_chunks))
  }
}
