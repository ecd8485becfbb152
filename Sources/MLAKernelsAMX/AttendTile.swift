import MLAKernelABI

/// Attention of up to `queryTile` queries to a range of packed keys.
///
/// Everything is kept transposed, S^T = K Q^T and O^T = V^T P^T: a lane is a
/// query, so the softmax needs no horizontal reduction. The tile unit and the
/// vector unit work side by side: while a panel's scores of a block are computed
/// they turn into probabilities behind, and what is left of that is done while
/// the previous panel's probabilities are multiplied with values.
///
/// No order of scores costs much more than another: by the model of a core in
/// Tests/SoftwareAMX at most 1.13 times random scores.
///
/// A query's bits depend on its own row, the keys and `key_begin` alone, not on
/// its place in the tile or on its neighbours.
///
/// Error of bf16: products are exact, sums fp32; probabilities carry 2.7e-6
/// relative error from `fastExp2`, as their sum does, and are then rounded to bf16.
///
/// Error of fp16: products of queries and keys are exact, sums fp32; probabilities
/// carry 1.6e-7 from `exp2`, then 2^-15 as they are split, and up to 2^-14 of a product
/// with a value is left out. Without its fourth product a score would err by up to 2^-16
/// of its terms: 1e-3 where these add up to 80.
///
/// Error of fp32: 2^-22 of products of queries and keys is left out, and 2^-20 of those
/// of probabilities and values; sums fp32. Three products instead of six would miss
/// the bounds of fp32 by far. By the model a call takes 0.29 of AVX-512's time.
@inline(never)
func attendTile<Operands: TileOperands>(
  _: Operands.Type, _ args: UnsafePointer<mla_attend_args>
) {
  let a = args.pointee
  let call = TileCall<Operands>(a, PackedLayout(a.dims, parts: Operands.parts))
  call.preparePanels()
  call.attendBlocks()
  for panel in 0..<call.panels { call.writePanel(panel) }
}

/// The arguments of a call, and what follows from them.
struct TileCall<Operands: TileOperands> {
  let args: mla_attend_args
  let layout: PackedLayout
  let scratch: TileScratch
  let panels: Int
  /// |scale| * log2(e): scores become exponents of two. The sign is the
  /// queries', and a scale of 0 is one too small to tell whatever the scores, for 0
  /// times the -inf of a masked score would be NaN.
  let scale: Float

  @inline(__always)
  init(_ args: mla_attend_args, _ layout: PackedLayout) {
    self.args = args
    self.layout = layout
    scratch = TileScratch(args.scratch.unsafelyUnwrapped, layout)
    panels = (Int(args.num_queries) + panelQueries - 1) / panelQueries
    scale = max(abs(args.scale) * log2e, .leastNonzeroMagnitude)
  }

  /// Queries of a panel that exist.
  @inline(__always)
  func queries(of panel: Int) -> Int {
    min(panelQueries, Int(args.num_queries) - panel * panelQueries)
  }

  @inline(__always)
  func preparePanels() {
    for panel in 0..<panels {
      packQueries(panel)
      scratch.panel(panel).statistics.reset()
      if keyEnd(of: panel) <= Int(args.key_begin) { clearOutputs(panel) }
    }
  }

  /// What no key ever reaches.
  @inline(__always)
  private func clearOutputs(_ panel: Int) {
    scratch.panel(panel).outputs.initializeMemory(
      as: UInt8.self, repeating: 0, count: layout.valueSteps * 32 * TileScratch.rowBytes)
  }

  /// The first key that no query of the panel sees.
  @inline(__always)
  private func keyEnd(of panel: Int) -> Int {
    min(
      Int(args.key_end), Int(args.causal_offset) &+ panel * panelQueries &+ queries(of: panel))
  }

  @inline(__always)
  func attendBlocks() {
    var previous = PanelPass.none
    var buffer = 0
    var begin = Int(args.key_begin)
    let end = keyEnd(of: panels - 1)
    while begin < end {
      let block = args.packed.unsafelyUnwrapped + begin / keyBlock * layout.bytes
      let ahead = begin + keyBlock < end ? layout.bytes : 0
      for panel in 0..<panels {
        let keys = min(keyBlock, keyEnd(of: panel) - begin)
        if keys <= 0 { continue }
        let groups = (keys + groupKeys - 1) / groupKeys
        let seenByAll = min(
          Int(args.causal_offset) &+ panel * panelQueries &+ 1, Int(args.key_end)) - begin
        let pass = PanelPass(
          panel: panel, firstKey: begin, groups: groups,
          wholeGroups: min(max(seenByAll, 0) / groupKeys, groups), isFirst: begin == Int(args.key_begin), block: block,
          probabilities: scratch.probabilities(buffer))
        let share = ahead / panels
        var lines = Prefetch(
          block + layout.bytes + panel * share, bytes: share, steps: groups * groupProducts)
        run(TurnedValues.self, pass, after: previous, prefetching: &lines)
        previous = pass
        buffer += 1
      }
      begin += keyBlock
    }
    var idle = NoWork()
    TurnedValues.accumulate(AnyPanels.self, previous, of: self, besides: &idle)
  }
}
