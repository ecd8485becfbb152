/// Where a layer's work beside a registered backend's runs is done.
protocol LayerPlace: Sendable {
  associatedtype Work: RegisteredWork

  /// Of keys and values of a chunk, enough for its run to outweigh merging.
  var fastestBytes: Int { get }

  /// What `rows` keys at once need beside their rows: workers, and bytes of each.
  func scratch(rows: Int, threads: Int) -> (workers: Int, bytes: Int)

  /// Runs `body` with the start, aligned, of that many bytes, and what works in them: in the
  /// caller's workspace if there is one. `bytes` has room for aligning.
  func withMemory(
    _ memory: RegisteredMemory, _ arguments: LayerArguments,
    _ body: (UnsafeMutableRawPointer, Work) throws(MLAError) -> Void
  ) throws(MLAError)
}

/// What a layer does there, in memory of `RegisteredMemory`.
protocol RegisteredWork {
  typealias State = (out: TensorView, lse: TensorView)

  /// Writes keys and values of `rows` rows, some of which are a span's.
  func writeRows(_ spans: some Collection<RowSpan>, rows: Int) throws(MLAError)
  /// What no keys give, in all rows of the dense `state`.
  func writeKeyless(_ state: State) throws(MLAError)
  /// Rounds times a number.
  func convert(_ source: TensorView, to target: TensorView, times multiplier: Float)
    throws(MLAError)
  func copy(_ lse: TensorView, to target: TensorView) throws(MLAError)
  /// Merges a part, in fp32, into what has been merged so far.
  func merge(_ part: State, into merged: State) throws(MLAError)
}
