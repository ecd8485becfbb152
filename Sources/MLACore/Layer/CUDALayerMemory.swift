/// What a round keeps on a device beside the caller's tensors.
///
///     latents    [rows, kv_lora_rank]
///     rope       [rows, qk_rope_head_dim]
///     keys       [rows, heads, qk_head_dim]
///     projected  [rows, heads, qk_nope_head_dim + v_head_dim]: what kv_b_proj makes, whose ends
///                are the values
///     workspace  of the attention
struct CUDALayerMemory {
  let round: CUDALayerPlan.Round
  private let config: LayerConfig

  init(_ round: CUDALayerPlan.Round, _ config: LayerConfig) {
    self.round = round
    self.config = config
  }

  /// Room for aligning the start included.
  var bytes: Int { workspaceOffset + alignedUp(round.workspaceBytes) + memoryAlignment }

  /// At most, of what all heads share.
  static func sharedBytes(_ rows: Int, _ config: LayerConfig) -> Int {
    latentBytes(rows, config) + ropeBytes(rows, config) + 4 * memoryAlignment
  }

  /// Of a head.
  static func headBytes(_ rows: Int, _ config: LayerConfig) -> Int {
    let dims = config.attention
    return rows * (dims.qkHeadDim + dims.qkNopeHeadDim + dims.vHeadDim) * config.type.bytes
  }

  static func latentBytes(_ rows: Int, _ config: LayerConfig) -> Int {
    alignedUp(rows * config.attention.kvLoraRank * config.type.bytes)
  }

  static func ropeBytes(_ rows: Int, _ config: LayerConfig) -> Int {
    alignedUp(rows * config.attention.qkRopeHeadDim * config.type.bytes)
  }

  func keys(_ start: UnsafeMutableRawPointer, heads: Int) -> TensorView {
    TensorView(
      type: config.type, dense: [round.rows, heads, config.attention.qkHeadDim],
      at: start + keysOffset)
  }

  func projected(_ start: UnsafeMutableRawPointer, heads: Int) -> TensorView {
    TensorView(
      type: config.type,
      dense: [round.rows, heads, config.attention.qkNopeHeadDim + config.attention.vHeadDim],
      at: start + projectedOffset)
  }

  func workspace(_ start: UnsafeMutableRawPointer) throws(MLAError) -> Workspace? {
    round.workspaceBytes == 0
      ? nil : try Workspace(start + workspaceOffset, size: Int64(round.workspaceBytes))
  }

  private var keysOffset: Int {
    Self.latentBytes(round.rows, config) + Self.ropeBytes(round.rows, config)
  }

  private var projectedOffset: Int {
    keysOffset
      + alignedUp(round.rows * round.heads * config.attention.qkHeadDim * config.type.bytes)
  }

  private var workspaceOffset: Int {
    let width = config.attention.qkNopeHeadDim + config.attention.vHeadDim
    return projectedOffset + alignedUp(round.rows * round.heads * width * config.type.bytes)
  }
}
