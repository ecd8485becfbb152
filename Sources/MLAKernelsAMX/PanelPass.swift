import MLAKernelABI
import MLAShims

/// One panel's way through one block of keys.
struct PanelPass {
  let panel: Int
  let firstKey: Int
  /// Groups of keys that a query of the panel sees.
  let groups: Int
  /// The first of them of which all its queries see all keys.
  let wholeGroups: Int
  /// Nothing is in the panel's outputs yet.
  let isFirst: Bool
  let block: UnsafeRawPointer
  let probabilities: UnsafeMutableRawPointer

  @inline(__always)
  static var none: PanelPass {
    // Never dereferenced: there are no groups.
    let nowhere = UnsafeMutableRawPointer(bitPattern: 64).unsafelyUnwrapped
    return PanelPass(
      panel: -1, firstKey: 0, groups: 0, wholeGroups: 0, isFirst: false, block: nowhere,
      probabilities: nowhere)
  }
}

/// How many of a panel's queries products are taken of, up to whole tiles.
protocol PanelHalves {
  static func columns(_ queries: Int) -> Int
}

/// Of panels with more than 16 queries.
enum WholePanels: PanelHalves {
  @inline(__always) static func columns(_: Int) -> Int { panelQueries }
}

enum AnyPanels: PanelHalves {
  @inline(__always) static func columns(_ queries: Int) -> Int { queries }
}

/// How a block's values lie, and with them a panel's outputs.
protocol ValueForm {
  /// Adds what a pass's probabilities and values are to its panel's outputs.
  static func accumulate<Panels: PanelHalves, Operands: TileOperands, Work: CompanionWork>(
    _: Panels.Type, _ pass: PanelPass, of call: TileCall<Operands>, besides work: inout Work)
  /// Makes outputs relative to a query's reference as it is now: factors of 32 queries.
  static func rescale<Operands: TileOperands>(
    _ outputs: UnsafeMutablePointer<FloatVector>, by factors: UnsafePointer<FloatVector>,
    of call: TileCall<Operands>)
}

extension TileCall {
  /// Scores and probabilities of `pass`; outputs of `previous`, whose
  /// probabilities are ready, on the way.
  ///
  /// Scores turn into probabilities while the block's later ones are computed,
  /// relative to the largest so far. Where that has been raised since, exponents are
  /// lowered while `previous` is accumulated: an eighth of the vector unit's work.
  @inline(__always)
  func run<Form: ValueForm, Ahead: LinesAhead>(
    _: Form.Type, _ pass: PanelPass, after previous: PanelPass, prefetching ahead: inout Ahead
  ) {
    // Chosen outside of what is compiled once for each: the vector unit has no time left for
    // it where panels are whole.
    if OperandHalves(right: queries(of: pass.panel)).areAll
      && (previous.groups == 0 || OperandHalves(right: queries(of: previous.panel)).areAll)
    {
      run(Form.self, WholePanels.self, pass, after: previous, prefetching: &ahead)
    } else {
      run(Form.self, AnyPanels.self, pass, after: previous, prefetching: &ahead)
    }
  }

  @inline(never)
  private func run<Form: ValueForm, Panels: PanelHalves, Ahead: LinesAhead>(
    _: Form.Type, _: Panels.Type, _ pass: PanelPass, after previous: PanelPass,
    prefetching ahead: inout Ahead
  ) {
    let panel = scratch.panel(pass.panel)
    let valueProducts = previous.groups * layout.valueSteps * Operands.valueProducts
    var stream = ProbabilityStream<Operands>(
      panel.statistics, scratch, groups: pass.groups, probabilities: pass.probabilities,
      scale: scale)
    // Vector work is spread evenly over both products: it begins two groups late.
    stream.setPace(over: max(pass.groups - 2, 0) * groupProducts + valueProducts)
    score(Panels.self, pass, &stream, prefetching: &ahead)
    stream.releaseLowering()
    stream.setPace(over: valueProducts)
    Form.accumulate(Panels.self, previous, of: self, besides: &stream)
    stream.finish()
    if stream.raises.groups != 0 && !pass.isFirst {
      panel.statistics.rescaleSums()
      Form.rescale(
        panel.outputs.assumingMemoryBound(to: FloatVector.self), by: panel.statistics.change,
        of: self)
    }
    stream.addSums(to: panel.statistics)
  }

  /// Times that four products of a group's scores are taken.
  @inline(__always) var groupProducts: Int { layout.depthSteps * Operands.scoreProducts }

  /// Scores of all groups, and the probabilities of those that the stream gets to.
  @inline(__always)
  private func score<Panels: PanelHalves, Ahead: LinesAhead>(
    _: Panels.Type, _ pass: PanelPass, _ stream: inout ProbabilityStream<Operands>,
    prefetching ahead: inout Ahead
  ) {
    let panel = scratch.panel(pass.panel)
    let ring = ScoreRing(scratch.scores)
    panel.statistics.beginBlock()
    for group in 0...pass.groups {
      if group < pass.groups {
        stream.makeRoom(for: group)
        stream.beginProduct()
        multiplyRows(
          Operands.self, pass.block + group * layout.keyGroupBytes, panel.queries,
          steps: layout.depthSteps,
          halves: OperandHalves(right: Panels.columns(queries(of: pass.panel))),
          into: ring.scores(group), prefetching: &ahead, besides: &stream)
        maskIfNeeded(pass, group, ring.scores(group))
      }
      // A group late: these scores have reached the L1 cache, those just stored not.
      if group == 0 { continue }
      let raised = panel.statistics.groupRises(ring.scores(group - 1))
      if raised {
        panel.statistics.raiseReference(scale: scale, stream.raises[group - 1])
      }
      stream.release(group - 1, raised: raised)
    }
  }

  /// Scores that a query must not see become -inf: keys after its own position,
  /// and those from `key_end` on.
  @inline(__always)
  private func maskIfNeeded(
    _ pass: PanelPass, _ group: Int, _ scores: UnsafeMutablePointer<FloatVector>
  ) {
    let key = pass.firstKey + group * groupKeys
    let firstQuery = pass.panel * panelQueries
    let ownKey = firstQuery &+ Int(args.causal_offset)
    // The panel's first query sees the fewest keys: if it sees all, so do the others.
    if key + groupKeys - 1 > ownKey || key + groupKeys > Int(args.key_end) {
      maskScores(scores, keys: Int(args.key_end) - key, firstKey: key &- ownKey)
    }
  }
}

/// Values turned, as `packBlock` leaves them, and outputs as well: O^T += V^T P^T.
enum TurnedValues: ValueForm {
  @inline(__always)
  static func accumulate<Panels: PanelHalves, Operands: TileOperands, Work: CompanionWork>(
    _: Panels.Type, _ pass: PanelPass, of call: TileCall<Operands>, besides work: inout Work
  ) {
    if pass.groups == 0 { return }
    let layout = call.layout
    let outputs = call.scratch.panel(pass.panel).outputs
    let groups = call.groupsOfTiles(in: pass)
    for step in 0..<layout.valueSteps {
      multiplyValues(
        Operands.self, pass.block + layout.valuesOffset(step: step, group: 0),
        pass.probabilities,
        halves: OperandHalves(right: Panels.columns(call.queries(of: pass.panel))), groups: groups, onto: outputs + step * 32 * TileScratch.rowBytes, isFirst: pass.isFirst,
        besides: &work)
    }
    for group in groups..<pass.groups { call.accumulateVisible(pass, group) }
  }

  @inline(never)
  static func rescale<Operands: TileOperands>(
    _ outputs: UnsafeMutablePointer<FloatVector>, by factors: UnsafePointer<FloatVector>,
    of call: TileCall<Operands>
  ) {
    let (factor0, factor1) = (factors[0], factors[1])
    for row in 0..<call.layout.valueSteps * 32 {
      outputs[2 * row] *= factor0
      outputs[2 * row + 1] *= factor1
    }
  }
}

/// `firstKey` is the group's first key counted from the key at the panel's first
/// query; `keys` of the group exist.
@inline(never)
private func maskScores(
  _ scores: UnsafeMutablePointer<FloatVector>, keys: Int, firstKey: Int
) {
  let none = FloatVector(repeating: -.infinity)
  var query = FloatVector(repeating: 0)
  for lane in 0..<lanes { query[lane] = Float(lane) }
  for key in 0..<groupKeys {
    // A panel's queries are counted from 0, so fp32 holds them exactly.
    let own = FloatVector(repeating: key < keys ? Float(firstKey + key) : .infinity)
    scores[2 * key] = mla_select_ge(query, own, scores[2 * key], none)
    scores[2 * key + 1] = mla_select_ge(query + 16, own, scores[2 * key + 1], none)
  }
}
