import CMLAPrefill

/// What stands behind a backend object (vLLM: MLAPrefillBackend): one of the
/// library's own backends or a registered one. Arguments arrive checked.
protocol MLAPrefillBackend: AnyObject, Sendable {
  /// An object of the same configuration, without metadata.
  func clone() throws(MLAError) -> any MLAPrefillBackend

  /// Does ahead what a first run would have to.
  func warmUp() throws(MLAError)

  /// Takes in a batch; what it returns is kept, and handed back in every run of it.
  ///
  /// - Throws: also where memory was short: the batch before stays in place.
  func prepareMetadata(_ metadata: PrefillMetadata, _ raw: UnsafePointer<mla_prefill_metadata>)
    throws(MLAError) -> PreparedBatch

  func runPrefillNewTokens(
    _ batch: PreparedBatch, _ arguments: RunArguments, _ raw: UnsafePointer<mla_new_tokens_args>
  ) throws(MLAError)

  func runPrefillContextChunk(
    _ batch: PreparedBatch, _ chunk: ContextChunk, _ arguments: RunArguments,
    _ raw: UnsafePointer<mla_context_chunk_args>
  ) throws(MLAError)

  func supportsOut() -> Bool
  func supportsQuantOutput(_ type: ElementType) -> Bool
  /// Bytes of workspace that any run of the batch needs.
  func workspaceSize(_ batch: PreparedBatch) throws(MLAError) -> Int
}

/// A batch as a backend has prepared it. Layers and threads share it, and what has
/// once been found out about its runs.
final class PreparedBatch: Sendable {
  let metadata: PrefillMetadata
  /// Of the library's own backends.
  let plans: RunPlans

  init(_ metadata: PrefillMetadata) throws(MLAError) {
    self.metadata = metadata
    plans = try RunPlans(chunks: metadata.chunks.count)
  }

  /// All that the batch announces.
  var runs: some Sequence<RunPlans.Run> {
    (-1..<metadata.chunks.count).lazy.map { $0 < 0 ? .newTokens : .chunk($0) }
  }
}
