@testable import MLACore
import MLATestSupport
import XCTest

/// How evenly threads finish: schedules carried out by simulated threads that
/// take tasks in order and need the time of `TileCost` for each. Waiting for a
/// phase's last thread is all that a schedule itself can lose.
final class ScheduleFinishTests: XCTestCase {
  /// 192/128 in bf16 pairs.
  private let shape = TileShape(
    queryTile: 48, keyBlock: 64, packedBlockBytes: 40960, vHeadDim: 128)
  private let threadCounts = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128]

  func testSinglePrompts() throws {
    for length in [512, 1024, 2048, 4096, 8192, 32768] {
      try check("S=\(length)", [(length, length)], causal: .end)
    }
  }

  func testBatches() throws {
    try check("8 x 128", Array(repeating: (128, 128), count: 8), causal: .end)
    try check("64 x 16", Array(repeating: (16, 16), count: 64), causal: .end)
    try check("mixed", [16, 4096, 300, 1, 77, 2048, 900, 64].map { ($0, $0) }, causal: .end)
    try check("one long", [(6000, 6000)] + Array(repeating: (40, 40), count: 30), causal: .end)
  }

  func testFewQueriesOnLongContexts() throws {
    try check("128 on 8064", [(128, 8064)], causal: .none)
    try check("1 on 8192", [(1, 8192)], causal: .none)
    try check("4 x 32 on 4096", Array(repeating: (32, 4096), count: 4), causal: .none)
  }

  func testUnitsFillTheirThreads() {
    let equal = Array(repeating: 1000, count: 16)
    XCTAssertEqual([1, 2, 3, 5, 16, 17, 128].map { soonestFinish(equal, threads: $0) },
      [16, 16, 15, 15, 16, 16, 0])
    XCTAssertEqual(soonestFinish([900, 10, 10, 10], threads: 2), 0)
    XCTAssertEqual(soonestFinish([], threads: 2), 0)
  }

  /// The heap against a search for the thread that is free first.
  func testTasksGoToTheThreadThatIsFreeFirst() {
    var random = SplitMix64(seed: 5)
    for threads in 1...9 {
      var finishes = ThreadFinishes(threads)
      var plain = Array(repeating: 0, count: threads)
      for _ in 0..<100 {
        let cost = random.int(1...50)
        finishes.add(cost)
        plain.sort()
        plain[0] += cost
        XCTAssertEqual(finishes.last, plain.max())
      }
    }
  }

  /// Many tasks of one cost, whatever came before, as one after the other.
  func testTasksOfOneCostAreHandedOutTogether() {
    var random = SplitMix64(seed: 6)
    for round in 0..<300 {
      let threads = random.int(1...9)
      var (together, singly) = (ThreadFinishes(threads), ThreadFinishes(threads))
      var costs: [Int] = []
      for _ in 0..<random.int(1...6) {
        let cost = random.pick([0, 1, random.int(1...50), random.int(1...20_000)])
        let count = random.pick([0, 1, random.int(0...30), random.int(100...600)])
        costs += Array(repeating: cost, count: count)
        together.add(cost, count: count)
        for _ in 0..<count { singly.add(cost) }
        XCTAssertEqual(together.last, singly.last, "round \(round)")
      }
      costs.sort(by: >)
      _ = soonestFinish(costs, threads: threads)
    }
  }

  func testFewTokensWakeNoThread() {
    func threads(_ lengths: [Int], causal: CausalMask = .end) -> Int {
      let spans = lengths.map {
        RequestSpan(queryBegin: 0, queryCount: $0, keyBegin: 0, keyCount: $0, causal: causal)
      }
      return TileCost.threads(spans, numHeads: 16, atMost: 64)
    }
    XCTAssertEqual([[], [0], [1], [16], [0, 16, 0]].map { threads($0) }, [1, 1, 1, 1, 1])
    XCTAssertGreaterThan(threads([64]), 1)
    XCTAssertLessThan(threads([64]), 8)
    XCTAssertEqual(threads(Array(repeating: 16, count: 64)), 47)
    XCTAssertEqual(threads([16, 4096]), 64)
    let longest = Int(Int32.max)
    XCTAssertEqual(threads([longest, longest], causal: .none), 64, "no number overflows")
  }

  func testNeighboursAreTakenTogether() throws {
    var random = SplitMix64(seed: 5)
    for _ in 0..<200 {
      let costs = (0..<random.int(0...60)).map { _ in random.int(0...40_000) }
      let threads = random.int(1...9)
      let groups = try groups(costs, threads: threads)
      XCTAssertEqual(groups.flatMap { Array($0) }, Array(costs.indices))
      let least = min(TileCost.leastPerGroup, costs.reduce(0, +) / (8 * threads))
      for group in groups {
        XCTAssertLessThan(
          costs[group].dropLast().reduce(0, +), max(1, least), "one more than is needed")
      }
      for group in groups.dropLast() {
        XCTAssertGreaterThanOrEqual(costs[group].reduce(0, +), least)
      }
    }
    let short = Array(repeating: 936, count: 1024)
    XCTAssertEqual(try groups(short, threads: 2).first, 0..<18)
  }

  /// The same, whether equal costs are told one by one or together.
  private func groups(_ costs: [Int], threads: Int) throws -> [Range<Int>] {
    let groups = Array(try UnitGroups(singly(costs), threads: threads))
    XCTAssertEqual(Array(try UnitGroups(together(costs), threads: threads)), groups)
    return groups
  }

  private func soonestFinish(_ costs: [Int], threads: Int) -> Int {
    let count = UnitChoice.soonestFinish(singly(costs), threads: threads)
    XCTAssertEqual(UnitChoice.soonestFinish(together(costs), threads: threads), count)
    return count
  }

  private func singly(_ costs: [Int]) -> [CostRun] { costs.map { CostRun(cost: $0, count: 1) } }

  private func together(_ costs: [Int]) -> [CostRun] {
    costs.reduce(into: []) { runs, cost in
      if let last = runs.last, last.cost == cost {
        runs[runs.count - 1] = CostRun(cost: cost, count: last.count + 1)
      } else {
        runs.append(CostRun(cost: cost, count: 1))
      }
    }
  }

  /// At least 0.9 of the threads' time is work wherever each has ten tasks.
  private func check(_ name: String, _ requests: [(Int, Int)], causal: CausalMask) throws {
    var (queries, keys) = (0, 0)
    let spans = requests.map { (queryCount, keyCount) in
      defer { (queries, keys) = (queries + queryCount, keys + keyCount) }
      return RequestSpan(
        queryBegin: queries, queryCount: queryCount, keyBegin: keys, keyCount: keyCount,
        causal: causal)
    }
    // Unsplit, few queries on a long context are few tasks.
    for split in [SplitRule.byCost(numHeads: 16), .fixedRanges] + (causal == .end ? [.never] : []) {
      for threads in threadCounts {
        let schedule = try TileSchedule(
          spans, numHeads: 16, shape: shape, split: split, threads: threads,
          waveBytes: TileSchedule.waveBytes(threads: threads))
        let run = SimulatedRun(schedule, threads: threads)
        guard run.tasks >= 10 * threads else { continue }
        XCTAssertGreaterThan(run.efficiency, 0.9, "\(name), \(split), \(threads) threads")
      }
    }
  }
}

/// A schedule carried out by threads that never wait but for a phase's end.
private struct SimulatedRun {
  private(set) var makespan = 0
  private(set) var work = 0
  /// Smallest pieces that threads could have shared.
  private(set) var tasks = 0
  private let threads: Int

  var efficiency: Double { Double(work) / Double(threads) / Double(max(1, makespan)) }

  init(_ schedule: TileSchedule, threads: Int) {
    self.threads = threads
    run(schedule.unitGroups.map { $0.reduce(0) { $0 + cost(of: schedule.units[$1], schedule) } })
    for wave in schedule.waves { phases(of: wave, schedule).forEach { run($0) } }
  }

  private mutating func cost(of unit: TileSchedule.Wave, _ schedule: TileSchedule) -> Int {
    phases(of: unit, schedule).joined().reduce(0, +)
  }

  /// What the tasks of each phase cost.
  private mutating func phases(of wave: TileSchedule.Wave, _ schedule: TileSchedule) -> [[Int]] {
    (0..<wave.turns).flatMap { turn in
      let count = wave.taskCount(inTurn: turn)
      tasks += count
      return [
        schedule.packTasks(in: wave, turn: turn).map(Self.cost),
        (0..<count).map { Self.cost(schedule.attendTask($0, in: wave, turn: turn)) },
        (0..<wave.end.tile).map { Self.cost(schedule.combineTask($0, in: wave, turn: turn)) },
      ]
    }
  }

  private mutating func run(_ costs: [Int]) {
    var finishes = ThreadFinishes(threads)
    for cost in costs { finishes.add(cost) }
    makespan += finishes.last
    work += costs.reduce(0, +)
  }

  private static func cost(_ task: PackTask) -> Int { task.heads.count * task.keys.count * TileCost.key }

  /// A tile computes on whole vectors of queries, up to the last key that one of
  /// them sees.
  private static func cost(_ task: AttendTask?) -> Int {
    guard let task else { return 0 }
    let end = min(task.keys.upperBound, task.causalOffset + task.queries.count)
    let queries = (task.queries.count + 15) / 16 * 16
    return queries * (max(0, end - task.keys.lowerBound) + TileCost.query)
  }

  private static func cost(_ task: CombineTask) -> Int {
    task.queries.count * task.added.count * 2 * TileCost.partial
  }
}
