/// Neighbours among units, for a thread to take together: their rows lie side by side,
/// and it fetches the next one's while it works on one. Single units where these are
/// long, or where a thread would have fewer than eight groups.
struct UnitGroups: RandomAccessCollection, Sendable {
  /// Groups of the same size.
  private struct Run {
    let firstGroup: Int
    let firstUnit: Int
    let size: Int
  }

  private let runs: FixedArray<Run>
  let endIndex: Int

  /// - Parameter costs: of the units.
  init(_ costs: some Sequence<CostRun>, threads: Int) throws(MLAError) {
    let total = costs.reduce(0) { $0 + $1.cost * $1.count }
    let least = Swift.min(TileCost.leastPerGroup, total / (8 * Swift.max(1, threads)))
    var count = 0
    Self.forEachRun(costs, least) { _, _ in count += 1 }
    var runs = try FixedArray<Run>(capacity: count, for: "a schedule's groups of units")
    var groups = 0
    Self.forEachRun(costs, least) { run, count in
      runs.append(run)
      groups += count
    }
    self.runs = runs
    endIndex = groups
  }

  var startIndex: Int { 0 }

  subscript(group: Int) -> Range<Int> {
    let run = runs[lastNumber(in: runs.indices) { runs[$0].firstGroup <= group }]
    let first = run.firstUnit + (group - run.firstGroup) * run.size
    return first..<first + run.size
  }

  /// A group ends with the unit that makes it cost enough.
  private static func forEachRun(
    _ costs: some Sequence<CostRun>, _ least: Int, _ body: (_ run: Run, _ groups: Int) -> Void
  ) {
    // The first unit and the cost of the group that is not full, and what comes next.
    var (first, cost, group, unit) = (0, 0, 0, 0)
    func close(size: Int, groups: Int = 1) {
      body(Run(firstGroup: group, firstUnit: first, size: size), groups)
      group += groups
      first += size * groups
      cost = 0
    }
    for run in costs {
      var left = run.count
      if unit > first {
        let taken = Swift.min(left, run.unitsThatCost(least - cost))
        unit += taken
        left -= taken
        cost += taken * run.cost
        if cost < least { continue }
        close(size: unit - first)
      }
      let size = run.unitsThatCost(least)
      if left >= size { close(size: size, groups: left / size) }
      cost = left % size * run.cost
      unit += left
    }
    if unit > first { close(size: unit - first) }
  }
}

/// Units of the same cost that follow each other.
struct CostRun {
  let cost: Int
  let count: Int

  /// The fewest, but at least one, that cost so much.
  fileprivate func unitsThatCost(_ least: Int) -> Int {
    if least <= cost { return 1 }
    return cost == 0 ? .max : (least + cost - 1) / cost
  }
}
