/// Which pairs of (request, head) become units, each for one thread alone, and
/// what is left for all threads together.
///
/// A unit's packed keys stay in its thread's cache and there is no phase to wait
/// for, but as many threads as there are units may be idle at the end. Units are
/// therefore as many, longest first, as finish soonest: that is simulated.
struct UnitChoice {
  let units: TileSchedule.Waves
  let groups: UnitGroups
  private let requests: TileRequests
  /// All requests that may be units.
  private let shares: FixedArray<Share>
  private let bytesPerUnit: Int

  fileprivate typealias Share = TileSchedule.Waves.Share

  /// - Parameter bytesPerUnit: most packed blocks and partial results that a thread
  ///   may keep.
  init(_ requests: TileRequests, threads: Int, bytesPerUnit: Int) throws(MLAError) {
    self.requests = requests
    self.bytesPerUnit = bytesPerUnit
    var shares = try FixedArray<Share>(
      capacity: requests.longestFirst.count, for: "a schedule's units")
    var count = 0
    for request in requests.longestFirst.indices {
      let heads = Self.headsPerUnit(request, requests, bytesPerUnit)
      if heads < 1 { continue }
      // A range at a time stays in its worker's cache.
      let share = Share(
        request: request, heads: 0..<requests.numHeads, headsPerWave: heads, tilesPerWave: .max,
        rangesPerTurn: 1, firstWave: count, place: .init())
      shares.append(share)
      count += share.wavesOfHeads
    }
    self.shares = shares
    let soonest = Self.soonestFinish(UnitCosts(requests, shares, count: count), threads: threads)
    units = TileSchedule.Waves(requests, shares, count: soonest)
    groups = try UnitGroups(UnitCosts(requests, shares, count: soonest), threads: threads)
  }

  /// 0: a thread has no room for any.
  private static func headsPerUnit(_ request: Int, _ requests: TileRequests, _ bytesPerUnit: Int)
    -> Int
  {
    let head = requests.segment(
      requests.longestFirst[request], heads: 0..<1, rangesPerTurn: 1)
    let shape = requests.shape
    let bytes =
      head.blockCount * shape.packedBlockBytes + head.partialCount * shape.partialFloats * 4
    return min(requests.headsPerPack, bytesPerUnit / max(1, bytes))
  }

  /// Calls `body` for the heads of each request that are in no unit, those that are
  /// too long for any first.
  func forEachRest(_ body: (_ request: Int, _ heads: Range<Int>) -> Void) {
    for request in requests.longestFirst.indices
    where Self.headsPerUnit(request, requests, bytesPerUnit) < 1 {
      body(request, 0..<requests.numHeads)
    }
    for share in shares {
      let rest = share.heads.dropFirst(max(0, units.count - share.firstWave) * share.headsPerWave)
      if !rest.isEmpty { body(share.request, rest) }
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
  private let shares: FixedArray<UnitChoice.Share>
  /// Of the first units.
  private let count: Int

  init(_ requests: TileRequests, _ shares: FixedArray<UnitChoice.Share>, count: Int) {
    self.requests = requests
    self.shares = shares
    self.count = count
  }

  func makeIterator() -> Iterator { Iterator(costs: self) }

  struct Iterator: IteratorProtocol {
    fileprivate let costs: UnitCosts
    private var share = 0
    private var unit = 0

    fileprivate init(costs: UnitCosts) { self.costs = costs }

    /// Units of as many heads as they may have, of requests of one length together; or
    /// what is left of a request's heads.
    mutating func next() -> CostRun? {
      guard unit < costs.count else { return nil }
      if unit == fullEnd {
        let heads = costs.requests.numHeads % current.headsPerWave
        let cost = headCost * heads
        unit += 1
        share += 1
        return CostRun(cost: cost, count: 1)
      }
      let (cost, first) = (fullCost, unit)
      while unit < costs.count, unit < fullEnd, fullCost == cost {
        unit = Swift.min(fullEnd, costs.count)
        guard costs.requests.numHeads.isMultiple(of: current.headsPerWave) else { break }
        share += 1
      }
      return CostRun(cost: cost, count: unit - first)
    }

    private var current: UnitChoice.Share { costs.shares[share] }

    /// Behind the request's units of as many heads as they may have.
    private var fullEnd: Int {
      current.firstWave + costs.requests.numHeads / current.headsPerWave
    }

    private var fullCost: Int { headCost * current.headsPerWave }

    private var headCost: Int {
      TileCost.ofHead(
        costs.requests.longestFirst[current.request].span,
        headsPerKeyHead: costs.requests.headsPerKeyHead)
    }
  }
}
