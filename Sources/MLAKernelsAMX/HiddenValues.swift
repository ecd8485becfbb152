import MLAKernelABI
import MLAShims

// Tiles multiply what a query does not see by a probability of 0, which lets through
// what is not finite. Groups of keys that only some queries of a panel see all of,
// one or two of a panel, are therefore looked through, and multiplied without such
// values; these are then added for the queries that see them.

extension TileCall {
  /// Groups of a pass, up to the first that is not to be multiplied as it is.
  @inline(__always)
  func groupsOfTiles(in pass: PanelPass) -> Int {
    var group = pass.wholeGroups
    while group < pass.groups && valuesAreFinite(pass.block, group) { group += 1 }
    return group
  }

  @inline(never)
  private func valuesAreFinite(_ block: UnsafeRawPointer, _ group: Int) -> Bool {
    // 0 times what is finite.
    let zero = FloatVector(repeating: 0)
    var (sum0, sum1, sum2, sum3) = (zero, zero, zero, zero)
    for step in 0..<layout.valueSteps {
      // A number that is not finite has a first part that is not.
      let rows = values(block, step, group).assumingMemoryBound(to: FloatVector.self)
      for row in stride(from: 0, to: 32, by: 4) {
        sum0 = mla_dot_bf16_pair(rows[row], 0, sum0)
        sum1 = mla_dot_bf16_pair(rows[row + 1], 0, sum1)
        sum2 = mla_dot_bf16_pair(rows[row + 2], 0, sum2)
        sum3 = mla_dot_bf16_pair(rows[row + 3], 0, sum3)
      }
    }
    let sum = (sum0 + sum1) + (sum2 + sum3)
    let one = FloatVector(repeating: 1)
    return !mla_any_greater(mla_select_eq(sum, sum, zero, one), zero)
  }

  /// O^T += V^T P^T for a group of which not all queries see all keys, and in which there
  /// are values that are not finite. What is finite counts to the bit as it does elsewhere.
  @inline(never)
  func accumulateVisible(_ pass: PanelPass, _ group: Int) {
    let outputs = scratch.panel(pass.panel).outputs
    let pairBytes = Operands.parts * TileScratch.rowBytes
    for step in 0..<layout.valueSteps {
      let values = values(pass.block, step, group).assumingMemoryBound(to: UInt16.self)
      let finite = scratch.values.assumingMemoryBound(to: UInt16.self)
      for i in 0..<layout.valueGroupBytes / 2 { finite[i] = isFinite(values[i]) ? values[i] : 0 }
      let target = outputs + step * 32 * TileScratch.rowBytes
      var idle = NoWork()
      multiplyValues(
        Operands.self, finite, pass.probabilities + group * pairsPerGroup * pairBytes, groups: 1,
        onto: target, isFirst: false, besides: &idle)
      let keys = Int(args.key_end) - pass.firstKey - group * groupKeys
      for i in 0..<partBytes / 2 where i % groupKeys < keys && !isFinite(values[i]) {
        add(
          Float(bitPattern: UInt32(values[i]) << 16), ofKey: i % groupKeys, pass, group,
          to: target.assumingMemoryBound(to: FloatVector.self) + i / groupKeys * 2)
      }
    }
  }

  /// Adds to a dim's outputs a value that outweighs all probabilities.
  @inline(__always)
  private func add(
    _ value: Float, ofKey key: Int, _ pass: PanelPass, _ group: Int,
    to outputs: UnsafeMutablePointer<FloatVector>
  ) {
    let ownKey = pass.panel * panelQueries &+ Int(args.causal_offset)
    let first = pass.firstKey &+ group * groupKeys &+ key &- ownKey
    let own = FloatVector(repeating: Float(first))
    var query = FloatVector(repeating: 0)
    for lane in 0..<lanes { query[lane] = Float(lane) }
    outputs[0] = mla_select_ge(query, own, outputs[0] + value, outputs[0])
    outputs[1] = mla_select_ge(query + 16, own, outputs[1] + value, outputs[1])
  }

  @inline(__always)
  private func values(_ block: UnsafeRawPointer, _ step: Int, _ group: Int) -> UnsafeRawPointer {
    block + layout.valuesOffset(step: step, group: group)
  }

  @inline(__always)
  private func isFinite(_ bits: UInt16) -> Bool { bits & 0x7f80 != 0x7f80 }
}
