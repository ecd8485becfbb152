/// Slots of a cache as engines hand them in: runs of neighbours, a block each.
struct SlotRuns {
  private let slots: FixedArray<Int64>
  /// How often the next slot is in another group.
  private let changes: Int
  private let isAscending: Bool

  init(_ slots: FixedArray<Int64>) {
    self.slots = slots
    var (changes, isAscending, previous) = (0, true, Int64(-1))
    for slot in slots where slot >= 0 {
      if Self.group(slot) != Self.group(previous) { changes += 1 }
      if slot <= previous { isAscending = false }
      previous = slot
    }
    (self.changes, self.isAscending) = (changes, isAscending)
  }

  /// Whether a slot stands twice: by a table of the groups met, looked up once a run.
  func meetAgain() throws(MLAError) -> Bool {
    if isAscending { return false }
    let capacity = 1 << (Int.bitWidth - (2 * changes).leadingZeroBitCount)
    var table = try FixedArray(
      repeating: Group(number: -1, met: 0), count: capacity, for: "slots met")
    var place = 0
    for slot in slots where slot >= 0 {
      let number = Self.group(slot)
      if table[place].number != number { place = Self.place(of: number, in: table) }
      let bit: UInt64 = 1 << UInt64(slot & 63)
      if table[place].met & bit != 0 { return true }
      table[place] = Group(number: number, met: table[place].met | bit)
    }
    return false
  }

  /// 64 neighbouring slots.
  private struct Group {
    var number: Int64
    var met: UInt64
  }

  private static func group(_ slot: Int64) -> Int64 { slot >> 6 }

  /// Where a group is, or may be put. The table's size is a power of two.
  private static func place(of number: Int64, in table: FixedArray<Group>) -> Int {
    let golden: UInt64 = 0x9e37_79b9_7f4a_7c15
    let unused = UInt64(64 - table.count.trailingZeroBitCount)
    var place = Int((UInt64(bitPattern: number) &* golden) >> unused)
    while table[place].number != number, table[place].number >= 0 {
      place = (place + 1) & (table.count - 1)
    }
    return place
  }
}
