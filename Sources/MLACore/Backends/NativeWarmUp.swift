/// Inputs for one small run that is thrown away: it starts the threads, touches
/// the memory and brings the code in that a first run would have to.
enum NativeWarmUp {
  private static let tokens = 64
  /// Beyond which it would be no small run.
  private static let mostOutBytes = 64 << 20

  /// Calls `run` once for each dtype, with no more heads than there are threads.
  static func run(
    _ config: BackendConfig, _ run: (RowOffsets, RunArguments) throws(MLAError) -> Void
  ) throws(MLAError) {
    let mostHeads = max(1, mostOutBytes / (tokens * config.vHeadDim * 4))
    let heads = min(config.numHeads, HostSettings.threads, mostHeads)
    let inputBytes = tokens * (2 * config.qkHeadDim + config.vHeadDim) * 4
    let outBytes = tokens * heads * config.vHeadDim * 4
    let memory = try ScratchArena.take(bytes: inputBytes + outBytes, for: "warm-up")
    let start = memory.base
    start.initializeMemory(as: UInt8.self, repeating: 0, count: inputBytes + outBytes)
    for type in ElementType.allCases where type.isAttentionType {
      // All heads read the same rows; each writes its own.
      func input(_ dim: Int, at offset: Int) -> TensorView {
        TensorView(
          type: type, shape: [tokens, heads, dim], strides: [dim, 0, 1],
          address: UInt(bitPattern: start + offset))
      }
      let arguments = RunArguments(
        q: input(config.qkHeadDim, at: 0),
        k: input(config.qkHeadDim, at: tokens * config.qkHeadDim * 4),
        v: input(config.vHeadDim, at: tokens * 2 * config.qkHeadDim * 4),
        out: TensorView(
          type: type, dense: [tokens, heads, config.vHeadDim], at: start + inputBytes))
      try run(RowOffsets(lengths: CollectionOfOne(tokens)), arguments)
    }
  }
}
