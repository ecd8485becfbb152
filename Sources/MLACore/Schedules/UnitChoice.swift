/// Which pairs of (request, head) become units, each for one thread alone, and
/// what is left for all threads together.
///
/// A unit's packed keys stay in its thread's cache and there is no phase to wait
/// for, but as many threads as there are units may be idle at the end. Units are
/// therefore as many, longest first, as finish soonest: that is simulated.
struct UnitChoice {
  private(set) var units = TileSchedule.Units()
  /// Neighbours among the units, for a thread to take together: their rows lie side by
  /// side, and it fetches the next one's while it works on one. Single units where
  /// these are long, or where a thread would have fewer than eight groups.
  private(set) var groups: [Range<Int>] = []
  /// Segments, or the last heads of them.
  private(set) var rest: [TileSchedule.Segment] = []

  /// - Parameters:
  ///   - requests: all heads of each, longest first.
  ///   - bytesPerUnit: most packed blocks and partial results that a thread may keep.
  init(
    _ requests: [TileSchedule.Segment], isCausal: Bool, shape: TileShape, threads: Int,
    headsPerUnit: Int, bytesPerUnit: Int
  ) {
    for request in requests {
      let head = request.narrowed(to: 0..<1, splitsPerTurn: 1)
      let bytes =
        head.blockCount * shape.packedBlockBytes + head.partialCount * shape.partialFloats * 4
      let heads = min(headsPerUnit, bytesPerUnit / max(1, bytes))
      if heads < 1 { rest.append(request) } else { units.append(request, headsPerUnit: heads) }
    }
    let costs = units.map { TileCost.of($0, isCausal: isCausal) }
    let count = Self.soonestFinish(costs, threads: threads)
    groups = Self.groups(costs.prefix(count), threads: threads)
    rest += units.dropFirst(count)
    units.removeLast(units.count - count)
  }

  static func groups(_ costs: ArraySlice<Int>, threads: Int) -> [Range<Int>] {
    let least = min(TileCost.leastPerGroup, costs.reduce(0, +) / (8 * max(1, threads)))
    var groups: [Range<Int>] = []
    var (begin, cost) = (0, 0)
    for (unit, unitCost) in costs.enumerated() {
      cost += unitCost
      if cost >= least || unit + 1 == costs.count {
        groups.append(begin..<unit + 1)
        (begin, cost) = (unit + 1, 0)
      }
    }
    return groups
  }

  /// How many of the first units to hand out one by one, if all threads share
  /// the rest evenly, though at a higher cost.
  static func soonestFinish(_ costs: [Int], threads: Int) -> Int {
    var finishes = ThreadFinishes(threads)
    var left = costs.reduce(0, +)
    var soonest = (finish: left * sharedCostPercent / threads, count: 0)
    for (index, cost) in costs.enumerated() {
      finishes.add(cost)
      left -= cost
      let finish = finishes.last * 100 + left * sharedCostPercent / threads
      if finish <= soonest.finish { soonest = (finish, index + 1) }
    }
    return soonest.count
  }

  /// What phases and packed keys from another core's cache add.
  private static let sharedCostPercent = 115
}

/// When each of some threads that take tasks in order will be done.
struct ThreadFinishes {
  /// A heap: no entry is above the two at twice its place, plus one and two.
  private var finishes: [Int]
  private(set) var last = 0

  init(_ threads: Int) { finishes = Array(repeating: 0, count: max(1, threads)) }

  /// The next task goes to the thread that is free first.
  mutating func add(_ cost: Int) {
    let finish = finishes[0] + cost
    last = max(last, finish)
    var place = 0
    while true {
      var child = 2 * place + 1
      guard child < finishes.count else { break }
      if child + 1 < finishes.count, finishes[child + 1] < finishes[child] { child += 1 }
      guard finishes[child] < finish else { break }
      finishes[place] = finishes[child]
      place = child
    }
    finishes[place] = finish
  }
}
