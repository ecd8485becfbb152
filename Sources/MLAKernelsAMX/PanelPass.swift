import MLAKernelABI
import MLAShims

/// One panel's way through one block of keys.
struct PanelPass {
  let panel: Int
  let firstKey: Int
  /// Groups of keys that a query of the panel sees.
  let groups: Int
  /// Nothing is in the panel's outputs yet.
  var isFirst: Bool
  let block: UnsafeRawPointer
  let probabilities: UnsafeMutableRawPointer
  /// Groups whose probabilities have been multiplied with values.
  var accumulated = 0

  @inline(__always)
  static var none: PanelPass {
    // Never dereferenced: there are no groups.
    let nowhere = UnsafeMutableRawPointer(bitPattern: 64).unsafelyUnwrapped
    return PanelPass(
      panel: -1, firstKey: 0, groups: 0, isFirst: false, block: nowhere, probabilities: nowhere)
  }
}

extension TileCall {
  /// Scores and probabilities of `pass`; outputs of `previous`, whose
  /// probabilities are ready, on the way.
  @inline(never)
  func run(
    _ pass: inout PanelPass, after previous: inout PanelPass, prefetching next: UnsafeRawPointer,
    _ nextBytes: Int
  ) {
    let panel = scratch.panel(pass.panel)
    let groupPairs = ProbabilityStream.pairsPerGroup
    let valueTiles = (previous.groups - previous.accumulated) * layout.valueSteps
    var stream = ProbabilityStream(
      panel.statistics, scores: scratch.scores, probabilities: pass.probabilities, scale: scale)
    // Vector work is spread evenly over both products: it begins two groups late.
    stream.setPace(
      pairs: pass.groups * groupPairs,
      over: max(pass.groups - 2, 0) * layout.depthSteps + valueTiles)
    var ahead = Prefetch(next, bytes: nextBytes, steps: pass.groups * layout.depthSteps)
    for group in 0...pass.groups {
      if group < pass.groups {
        // The ring's oldest scores are about to be overwritten.
        stream.convert(upTo: (group + 1 - TileScratch.ringGroups) * groupPairs)
        stream.beginProduct()
        multiplyRows(
          pass.block + group * layout.keyGroupBytes, panel.queries, steps: layout.depthSteps,
          into: scratch.scores(group), prefetching: &ahead, besides: &stream)
        maskIfNeeded(pass, group)
      }
      // A group late: these scores have reached the L1 cache, those just stored not.
      let settled = group - 1
      if settled < 0 { continue }
      if panel.statistics.groupRises(scratch.scoreRows(settled)) {
        stream.convert(upTo: settled * groupPairs)
        stream.save(panel.statistics)
        raise(&pass, before: settled, after: &previous)
        stream.reload(panel.statistics)
      }
      stream.knownPairs = (settled + 1) * groupPairs
    }
    stream.setPace(pairs: stream.knownPairs - stream.pair, over: valueTiles)
    accumulate(&previous, upTo: previous.groups, besides: &stream)
    stream.convert(upTo: stream.knownPairs)
    stream.save(panel.statistics)
  }

  /// O^T += V^T P^T for the groups of `pass` up to `end` that are not in it yet.
  @inline(__always)
  func accumulate<Work: CompanionWork>(
    _ pass: inout PanelPass, upTo end: Int, besides work: inout Work
  ) {
    let groups = end - pass.accumulated
    if groups <= 0 { return }
    let outputs = scratch.panel(pass.panel).outputs
    let probabilities =
      pass.probabilities + pass.accumulated * TileScratch.probabilityGroupBytes
    let values =
      pass.block + (layout.valuesOffset + pass.accumulated * layout.valueGroupBytes)
    for step in 0..<layout.valueSteps {
      multiplyValues(
        values + step * layout.valueStepBytes, probabilities, groups: groups,
        onto: outputs + step * 32 * TileScratch.rowBytes, isFirst: pass.isFirst, besides: &work)
    }
    pass.accumulated = end
    pass.isFirst = false
  }

  /// Raises the panel's reference for the scores of `group`. All that is
  /// relative to the old reference comes into the outputs before they are rescaled.
  @inline(never)
  private func raise(_ pass: inout PanelPass, before group: Int, after previous: inout PanelPass) {
    var idle = NoWork()
    if previous.panel == pass.panel {
      accumulate(&previous, upTo: previous.groups, besides: &idle)
    }
    accumulate(&pass, upTo: group, besides: &idle)
    let panel = scratch.panel(pass.panel)
    panel.statistics.raiseReference(
      scale: scale, outputs: panel.outputs.assumingMemoryBound(to: FloatVector.self),
      rows: pass.isFirst ? 0 : layout.valueSteps * 32)
  }

  /// Scores that a query must not see become -inf: keys after its own position,
  /// and those from `key_end` on.
  @inline(__always)
  private func maskIfNeeded(_ pass: PanelPass, _ group: Int) {
    let key = pass.firstKey + group * groupKeys
    let firstQuery = pass.panel * panelQueries
    let ownKey = firstQuery &+ Int(args.causal_offset)
    // The panel's first query sees the fewest keys: if it sees all, so do the others.
    if key + groupKeys - 1 > ownKey || key + groupKeys > Int(args.key_end) {
      maskScores(
        scratch.scoreRows(group), keys: Int(args.key_end) - key, firstKey: key &- ownKey)
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
