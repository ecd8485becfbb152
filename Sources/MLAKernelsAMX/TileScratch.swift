import MLAKernelABI

/// What a call keeps beside its registers. Rows of 32 queries are 128 bytes, and
/// dense, so that neither score nor probability tiles collide in the L1 cache.
///
///     scores         see `ScoreRing`
///     probabilities  [2][block's key pairs][part][32 queries] pairs of bf16
///     raises         see `ReferenceRaises`
///     spare          one tile, for turning
///     values         [part][2] tiles, see `TileCall.accumulateVisible`
///     panels         [queryTile / 32], see `Panel`
struct TileScratch {
  let scores: UnsafeMutableRawPointer
  let raises: UnsafeMutableRawPointer
  let spare: UnsafeMutableRawPointer
  let values: UnsafeMutableRawPointer
  private let start: UnsafeMutableRawPointer
  private let firstPanel: UnsafeMutableRawPointer
  private let layout: PackedLayout

  @inline(__always) static var rowBytes: Int { 4 * panelQueries }
  @inline(__always) static var scoreGroupBytes: Int { groupKeys * rowBytes }

  @inline(__always)
  init(_ start: UnsafeMutableRawPointer, _ layout: PackedLayout) {
    self.start = start
    self.layout = layout
    scores = start + 2 * TileScratch.probabilityBytes(layout)
    raises = scores + ScoreRing.bytes
    spare = raises + layout.groups * ReferenceRaise.bytes
    values = spare + tileBytes
    firstPanel = values + layout.valueGroupBytes
  }

  /// One buffer is filled while the other is multiplied with values.
  @inline(__always)
  func probabilities(_ index: Int) -> UnsafeMutableRawPointer {
    start + (index & 1) * TileScratch.probabilityBytes(layout)
  }

  @inline(__always)
  private static func probabilityBytes(_ layout: PackedLayout) -> Int {
    layout.groups * pairsPerGroup * layout.parts * rowBytes
  }

  @inline(__always)
  func panel(_ index: Int) -> Panel { Panel(firstPanel + index * Panel.bytes(layout), layout) }

  @inline(__always)
  func bytes(panels: Int) -> Int { firstPanel - start + panels * Panel.bytes(layout) }
}

@inline(never)
func scratchBytes<Operands: TileOperands>(_: Operands.Type, _ dims: mla_kernel_dims) -> Int64 {
  let start = UnsafeMutableRawPointer(bitPattern: 64).unsafelyUnwrapped
  let scratch = TileScratch(start, PackedLayout(dims, parts: Operands.parts))
  return Int64(scratch.bytes(panels: queryTile / panelQueries))
}

/// 32 queries and their running softmax, from the first key to the last.
///
///     queries     [depth step][part][2]    right operands: 32 dims x 16 queries
///     outputs     [v_head_dim][32]         fp32, not yet divided by the sum
///     statistics  see `PanelStatistics`
struct Panel {
  let queries: UnsafeMutableRawPointer
  let outputs: UnsafeMutableRawPointer
  let statistics: PanelStatistics

  @inline(__always)
  init(_ start: UnsafeMutableRawPointer, _ layout: PackedLayout) {
    queries = start
    outputs = queries + layout.depthSteps * layout.parts * partBytes
    statistics = PanelStatistics(outputs + layout.valueSteps * 32 * TileScratch.rowBytes)
  }

  @inline(__always)
  static func bytes(_ layout: PackedLayout) -> Int {
    layout.depthSteps * layout.parts * partBytes
      + layout.valueSteps * 32 * TileScratch.rowBytes + PanelStatistics.bytes
  }
}
