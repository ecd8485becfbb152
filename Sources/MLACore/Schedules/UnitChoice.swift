/// Which pairs of (request, head) become units, each for one thread alone, and
/// what is left for all threads together.
///
/// A unit's packed keys stay in its thread's cache and there is no phase to wait
/// for, but as many threads as there are units may be idle at the end. Units are
/// therefore as many, longest first, as finish soonest: that is simulated.
struct UnitChoice {
  let units: TileSchedule.Units
  let groups: UnitGroups
  private let requests: TileRequests
  /// Of all requests that may be units.
  private let runs: FixedArray<TileSchedule.Units.Run>
  private let bytesPerUnit: Int

  /// - Parameter bytesPerUnit: most packed blocks and partial results that a thread
  ///   may keep.
  init(_ requests: TileRequests, threads: Int, bytesPerUnit: Int) throws(MLAError) {
    self.requests = requests
    self.bytesPerUnit = bytesPerUnit
    let segments = requests.segments
    var runs = try FixedArray<TileSchedule.Units.Run>(
      capacity: segments.count, for: "a schedule's units")
    var count = 0
    for request in segments.indices {
      let heads = Self.headsPerUnit(segments[request], requests.shape, bytesPerUnit)
      if heads < 1 { continue }
      runs.append(.init(request: request, firstUnit: count, headsPerUnit: heads))
      count += (requests.numHeads + heads - 1) / heads
    }
    self.runs = runs
    let soonest = Self.soonestFinish(UnitCosts(requests, runs, count: count), threads: threads)
    units = TileSchedule.Units(segments, runs, count: soonest)
    groups = try UnitGroups(UnitCosts(requests, runs, count: soonest), threads: threads)
  }

  /// 0: a thread has no room for any.
  private static func headsPerUnit(
    _ request: TileSchedule.Segment, _ shape: TileShape, _ bytesPerUnit: Int
  ) -> Int {
    let head = request.narrowed(to: 0..<1, splitsPerTurn: 1)
    let bytes =
      head.blockCount * shape.packedBlockBytes + head.partialCount * shape.partialFloats * 4
    return min(request.headsPerPack, bytesPerUnit / max(1, bytes))
  }

  /// Calls `body` for the heads of each request that are in no unit, those that are
  /// too long for any first.
  func forEachRest(_ body: (_ request: Int, _ heads: Range<Int>) -> Void) {
    let segments = requests.segments
    for request in segments.indices
    where Self.headsPerUnit(segments[request], requests.shape, bytesPerUnit) < 1 {
      body(request, 0..<requests.numHeads)
    }
    for run in runs {
      let first = min(max(0, units.count - run.firstUnit) * run.headsPerUnit, requests.numHeads)
      if first < requests.numHeads { body(run.request, first..<requests.numHeads) }
    }
  }

  /// How many of the first units to hand out one by one, if all threads share
  /// the rest evenly, though at a higher cost.
  static func soonestFinish(_ costs: some Sequence<CostRun>, threads: Int) -> Int {
    var finishes = ThreadFinishes(threads)
    var left = costs.reduce(0) { $0 + $1.cost * $1.count }
    var soonest = (finish: left * sharedCostPercent / threads, count: 0)
    var count = 0
    for run in costs {
      // One more for each thread finishes no later, as it takes more from what is shared
      // than it adds to any thread: no count is the best that has as many alike behind it.
      let alike = max(0, run.count - threads)
      finishes.add(run.cost, count: alike)
      left -= alike * run.cost
      count += alike
      for _ in alike..<run.count {
        finishes.add(run.cost)
        left -= run.cost
        count += 1
        let finish = finishes.last * 100 + left * sharedCostPercent / threads
        if finish <= soonest.finish { soonest = (finish, count) }
      }
    }
    return soonest.count
  }

  /// What phases and packed keys from another core's cache add.
  private static let sharedCostPercent = 115
}

/// What units cost, one request's after the other's.
private struct UnitCosts: Sequence {
  private let requests: TileRequests
  private let runs: FixedArray<TileSchedule.Units.Run>
  /// Of the first units.
  private let count: Int

  init(_ requests: TileRequests, _ runs: FixedArray<TileSchedule.Units.Run>, count: Int) {
    self.requests = requests
    self.runs = runs
    self.count = count
  }

  func makeIterator() -> Iterator { Iterator(costs: self) }

  struct Iterator: IteratorProtocol {
    fileprivate let costs: UnitCosts
    private var run = 0
    private var unit = 0

    fileprivate init(costs: UnitCosts) { self.costs = costs }

    /// Units of as many heads as they may have, of requests of one length together; or
    /// what is left of a request's heads.
    mutating func next() -> CostRun? {
      guard unit < costs.count else { return nil }
      if unit == fullEnd {
        let heads = costs.requests.numHeads % costs.runs[run].headsPerUnit
        let cost = headCost * heads
        unit += 1
        run += 1
        return CostRun(cost: cost, count: 1)
      }
      let (cost, first) = (fullCost, unit)
      while unit < costs.count, unit < fullEnd, fullCost == cost {
        unit = Swift.min(fullEnd, costs.count)
        guard costs.requests.numHeads.isMultiple(of: costs.runs[run].headsPerUnit) else { break }
        run += 1
      }
      return CostRun(cost: cost, count: unit - first)
    }

    /// Behind the request's units of as many heads as they may have.
    private var fullEnd: Int {
      costs.runs[run].firstUnit + costs.requests.numHeads / costs.runs[run].headsPerUnit
    }

    private var fullCost: Int { headCost * costs.runs[run].headsPerUnit }

    private var headCost: Int {
      TileCost.ofHead(
        costs.requests.segments[costs.runs[run].request].span, isCausal: costs.requests.isCausal)
    }
  }
}
