/// A batch (vLLM: MLACommonPrefillMetadata).
public struct PrefillMetadata: Sendable {
  public let queryStartLoc: RowOffsets
  public let chunks: ContextChunks
}
