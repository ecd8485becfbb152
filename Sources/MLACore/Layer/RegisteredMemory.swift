/// What a registered backend's part of a layer keeps beside the caller's tensors.
///
///     rows       keys [rows, heads, qk_head_dim], then values [rows, heads, v_head_dim], on
///                a device as the end of what kv_b_proj makes, [rows, heads,
///                qk_nope_head_dim + v_head_dim]: of the new tokens, then of one chunk after
///                the other; when a run is done with them, its result in fp32
///     part       what a run gives: out [tokens, heads, v_head_dim] in the layer's
///                dtype, lse [heads, tokens]
///     merged     fp32 out and lse of all runs so far
///     workspace  what the backend asks for
///     scratch    one per worker
///
/// Where one run writes what the caller wants there is neither part nor merged.
struct RegisteredMemory {
  let rows: Int
  let bytes: Int
  let workspaceBytes: Int
  private let config: LayerConfig
  private let tokens: Int
  private let partOffset: Int
  private let mergedOffset: Int
  private let workspaceOffset: Int
  let scratch: WorkerScratch

  /// - Parameters:
  ///   - rows: most keys of a run.
  ///   - tokens: new tokens.
  ///   - merges: results are merged and converted before the caller gets them.
  init(
    _ config: LayerConfig, rows: Int, tokens: Int, merges: Bool, workspaceBytes: Int,
    workers: Int, scratchBytes: Int
  ) {
    self.config = config
    self.rows = rows
    self.tokens = tokens
    self.workspaceBytes = workspaceBytes
    let heads = config.attention.numHeads
    let dim = heads * config.attention.vHeadDim
    let keyBytes = alignedUp(rows * Self.keyBytes(config))
    let valueBytes = rows * heads * Self.valueWidth(config) * config.type.bytes
    let outputs = merges ? tokens * dim : 0
    let lseBytes = merges ? alignedUp(tokens * heads * 4) : 0
    let resultBytes = outputs * 4
    partOffset = alignedUp(max(keyBytes + valueBytes, resultBytes))
    mergedOffset = partOffset + alignedUp(outputs * config.type.bytes) + lseBytes
    workspaceOffset = mergedOffset + alignedUp(resultBytes) + lseBytes
    scratch = WorkerScratch(
      workers: workers, bytes: scratchBytes, at: workspaceOffset + alignedUp(workspaceBytes))
    bytes = scratch.end + memoryAlignment
  }

  /// Bytes of a token's keys.
  private static func keyBytes(_ config: LayerConfig) -> Int {
    config.attention.numHeads * config.attention.qkHeadDim * config.type.bytes
  }

  /// Bytes of a token's keys and values.
  static func rowBytes(_ config: LayerConfig) -> Int {
    keyBytes(config)
      + config.attention.numHeads * valueWidth(config) * config.type.bytes
  }

  /// Elements of a head's row of values, the last ones.
  private static func valueWidth(_ config: LayerConfig) -> Int {
    let dims = config.attention
    return dims.device == .cpu ? dims.vHeadDim : dims.qkNopeHeadDim + dims.vHeadDim
  }

  /// At least what one more token costs.
  static func tokenBytes(_ config: LayerConfig) -> Int {
    let outputs = config.attention.numHeads * (config.attention.vHeadDim + 1)
    return rowBytes(config) + outputs * 4 * 3
  }

  func keys(_ start: UnsafeMutableRawPointer, _ rows: Int) -> TensorView {
    tensor(config.type, rows, config.attention.qkHeadDim, at: start)
  }

  func values(_ start: UnsafeMutableRawPointer, _ rows: Int) -> TensorView {
    let projected = projected(start, rows)
    let width = projected.shape[2]
    return projected.narrowed(2, to: width - config.attention.vHeadDim..<width)
  }

  /// What kv_b_proj makes on a device.
  func projected(_ start: UnsafeMutableRawPointer, _ rows: Int) -> TensorView {
    let keyBytes = alignedUp(rows * Self.keyBytes(config))
    return tensor(config.type, rows, Self.valueWidth(config), at: start + keyBytes)
  }

  /// A run's result in fp32, in the place of its keys and values.
  func result(_ start: UnsafeMutableRawPointer, _ tokens: Int) -> TensorView {
    tensor(.float32, tokens, config.attention.vHeadDim, at: start)
  }

  func part(_ start: UnsafeMutableRawPointer, _ tokens: Int) -> (out: TensorView, lse: TensorView) {
    outputs(config.type, tokens, at: start + partOffset)
  }

  func merged(_ start: UnsafeMutableRawPointer) -> (out: TensorView, lse: TensorView) {
    outputs(.float32, tokens, at: start + mergedOffset)
  }

  func workspace(_ start: UnsafeMutableRawPointer) -> UnsafeMutableRawPointer? {
    workspaceBytes == 0 ? nil : start + workspaceOffset
  }

  private func outputs(_ type: ElementType, _ tokens: Int, at start: UnsafeMutableRawPointer)
    -> (out: TensorView, lse: TensorView)
  {
    let (heads, dim) = (config.attention.numHeads, config.attention.vHeadDim)
    let outBytes = alignedUp(tokens * heads * dim * type.bytes)
    let lse = TensorView(
      type: .float32, shape: [heads, tokens], strides: [tokens, 1],
      address: UInt(bitPattern: start + outBytes))
    return (tensor(type, tokens, dim, at: start), lse)
  }

  private func tensor(
    _ type: ElementType, _ rows: Int, _ dim: Int, at start: UnsafeMutableRawPointer
  ) -> TensorView {
    TensorView(type: type, dense: [rows, config.attention.numHeads, dim], at: start)
  }
}
