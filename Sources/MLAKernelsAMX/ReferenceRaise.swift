import MLAShims

/// What a group of a pass over a block did to the references of a panel's queries,
/// two vectors each:
///
///     offset    what is added to scaled scores from this group on
///     change    of the offset, at this group
///     lowering  the offset's changes after this group, as `mla_lower_pairs` takes them
///
/// Probabilities of a group are relative to the reference at that group, whenever
/// they are computed, and brought down to that of the block's end.
struct ReferenceRaise {
  let offset: UnsafeMutablePointer<FloatVector>
  @inline(__always) var change: UnsafeMutablePointer<FloatVector> { offset + 2 }
  @inline(__always) var lowering: UnsafeMutablePointer<FloatVector> { offset + 4 }

  @inline(__always) static var bytes: Int { 6 * 64 }
}

/// The raises of a pass: written for the groups that have one, and for those
/// before the last of these what they have to be lowered by.
struct ReferenceRaises {
  private let start: UnsafeMutableRawPointer
  /// Bit by bit, whether a group raised a reference.
  private(set) var groups: UInt32 = 0

  @inline(__always)
  init(_ start: UnsafeMutableRawPointer) { self.start = start }

  @inline(__always)
  subscript(group: Int) -> ReferenceRaise {
    let p = start + group * ReferenceRaise.bytes
    return ReferenceRaise(offset: p.assumingMemoryBound(to: FloatVector.self))
  }

  @inline(__always)
  mutating func note(_ group: Int) { groups |= 1 << UInt32(truncatingIfNeeded: group) }

  @inline(__always)
  func has(_ group: Int) -> Bool { groups &>> UInt32(truncatingIfNeeded: group) & 1 != 0 }

  /// Groups before the last that raised a reference.
  @inline(__always)
  var lowered: Int { groups == 0 ? 0 : 31 - groups.leadingZeroBitCount }

  @inline(never)
  func sumUp() {
    var change0 = FloatVector(repeating: 0)
    var change1 = change0
    var group = lowered
    while group > 0 {
      if has(group) {
        change0 += self[group].change[0]
        change1 += self[group].change[1]
      }
      group -= 1
      self[group].lowering[0] = mla_lowering_of_pairs(change0)
      self[group].lowering[1] = mla_lowering_of_pairs(change1)
    }
  }
}
