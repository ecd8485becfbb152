import MLAKernelABI
import MLAShims

/// One panel's way through one block of keys.
struct PanelPass {
  let panel: Int
  let firstKey: Int
  /// Groups of keys that a query of the panel sees.
  let groups: Int
  /// Nothing is in the panel's outputs yet.
  let isFirst: Bool
  let block: UnsafeRawPointer
  let probabilities: UnsafeMutableRawPointer

  @inline(__always)
  static var none: PanelPass {
    // Never dereferenced: there are no groups.
    let nowhere = UnsafeMutableRawPointer(bitPattern: 64).unsafelyUnwrapped
    return PanelPass(
      panel: -1, firstKey: 0, groups: 0, isFirst: false, block: nowhere, probabilities: nowhere)
  }
}

/// How far the references of a panel's queries served its scores of a block.
private enum Served {
  case all
  /// Not all: the block's largest scores are known now, and its scores kept.
  case some
  /// Not all, and the first scores have been overwritten.
  case someLost
}

extension TileCall {
  /// Scores and probabilities of `pass`; outputs of `previous`, whose
  /// probabilities are ready, on the way.
  ///
  /// Scores turn into probabilities while the block's later ones are computed, in
  /// the hope that the references serve them as well. Where they do not, the block's
  /// scores are turned again, relative to its largest, while `previous` is
  /// accumulated: the vector unit works twice, the tile unit does not.
  @inline(never)
  func run(
    _ pass: PanelPass, after previous: PanelPass, ring: inout ScoreRing,
    prefetching next: UnsafeRawPointer, _ nextBytes: Int
  ) {
    let panel = scratch.panel(pass.panel)
    let pairs = pass.groups * pairsPerGroup
    let groupProducts = layout.depthSteps * Operands.scoreProducts
    let valueProducts = previous.groups * layout.valueSteps * Operands.valueProducts
    var stream = ProbabilityStream<Operands>(
      panel.statistics, ring, probabilities: pass.probabilities, scale: scale)
    var ahead = Prefetch(next, bytes: nextBytes, steps: pass.groups * groupProducts)
    var served = Served.someLost
    while served == .someLost {
      // Vector work is spread evenly over both products: it begins two groups late.
      stream.setPace(
        pairs: pairs, over: max(pass.groups - 2, 0) * groupProducts + valueProducts)
      served = score(pass, &stream, ring: &ring, prefetching: &ahead)
      if served == .someLost { stream.restart(panel.statistics, ring) }
    }
    if served == .some {
      panel.statistics.raiseReference(scale: scale)
      stream.restart(panel.statistics, ring)
    }
    stream.knownPairs = pairs
    stream.setPace(pairs: pairs - stream.pair, over: valueProducts)
    accumulate(previous, besides: &stream)
    stream.convert(upTo: pairs)
    stream.save(panel.statistics)
    if served == .some && !pass.isFirst {
      panel.statistics.rescale(
        panel.outputs.assumingMemoryBound(to: FloatVector.self), rows: layout.valueSteps * 32)
    }
  }

  /// Scores of all groups, and the probabilities of those that the stream gets to.
  @inline(__always)
  private func score(
    _ pass: PanelPass, _ stream: inout ProbabilityStream<Operands>, ring: inout ScoreRing,
    prefetching ahead: inout Prefetch
  ) -> Served {
    let panel = scratch.panel(pass.panel)
    panel.statistics.beginBlock()
    var served = Served.all
    for group in 0...pass.groups {
      if group < pass.groups {
        // The ring's oldest scores are about to be overwritten.
        stream.convert(upTo: (group + 1 - ring.groups) * pairsPerGroup)
        stream.beginProduct()
        multiplyRows(
          Operands.self, pass.block + group * layout.keyGroupBytes, panel.queries,
          steps: layout.depthSteps, into: ring.scores(group), prefetching: &ahead,
          besides: &stream)
        maskIfNeeded(pass, group, ring.scores(group))
      }
      // A group late: these scores have reached the L1 cache, those just stored not.
      let settled = group - 1
      if settled < 0 { continue }
      if panel.statistics.groupRises(ring.scores(settled)) && served == .all {
        if pass.isFirst && settled == 0 {
          panel.statistics.raiseReference(scale: scale)
          stream.restart(panel.statistics, ring)
        } else {
          served = .some
          let isLost = min(group, pass.groups - 1) >= ring.groups
          ring.keepBlock()
          if isLost { return .someLost }
        }
      }
      if served == .all { stream.knownPairs = (settled + 1) * pairsPerGroup }
    }
    return served
  }

  /// O^T += V^T P^T for all groups of `pass`.
  @inline(__always)
  func accumulate<Work: CompanionWork>(_ pass: PanelPass, besides work: inout Work) {
    if pass.groups == 0 { return }
    let outputs = scratch.panel(pass.panel).outputs
    for step in 0..<layout.valueSteps {
      multiplyValues(
        Operands.self, pass.block + (layout.valuesOffset + step * layout.valueStepBytes),
        pass.probabilities, groups: pass.groups,
        onto: outputs + step * 32 * TileScratch.rowBytes, isFirst: pass.isFirst, besides: &work)
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
