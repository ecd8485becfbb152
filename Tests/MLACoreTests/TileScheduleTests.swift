@testable import MLACore
import MLATestSupport
import XCTest

/// The schedule as a value: every tile of queries meets every key that it sees
/// exactly once and in order, in bounded memory.
final class TileScheduleTests: XCTestCase {
  private let shape = TileShape(queryTile: 48, keyBlock: 64, packedBlockBytes: 4096, vHeadDim: 8)

  func testEachQueryMeetsEachKeyOnce() throws {
    var random = SplitMix64(seed: 11)
    var (units, waves, turns) = (0, 0, 0)
    for round in 0..<80 {
      let spans = randomSpans(&random)
      let (headsPerTask, group) = (random.int(1...4), random.pick([1, 1, 4]))
      let split = random.pick([SplitRule.never, .fixedRanges, .byCost(numHeads: 3)])
      let threads = random.pick([1, 2, 7])
      let waveBytes = random.pick([1, 5 * 4096, 60 * 4096, 300 * 4096, 1 << 24])
      let schedule = try TileSchedule(
        spans, numHeads: 3, headsPerKeyHead: group, shape: shape, split: split, threads: threads,
        headsPerUnit: headsPerTask, waveBytes: waveBytes)
      checkRoom(schedule, blocks: max(1, waveBytes / 4096), "round \(round)")
      (units, waves) = (units + schedule.units.count, waves + schedule.waves.count)
      turns += schedule.waves.filter { $0.turns > 1 }.count
      let run = TracedRun(schedule, headsPerTask: headsPerTask)
      var expected = 0
      for span in spans where span.queryCount > 0 {
        for head in 0..<3 * group {
          for tile in stride(from: 0, to: span.queryCount, by: 48) {
            let end = min(tile + 48, span.queryCount)
            let queries = span.queryBegin + tile..<span.queryBegin + end
            let seen = max(0, min(span.keyCount, end + span.causalOffset))
            let ranges = try XCTUnwrap(run.results[.init(head: head, queries: queries)])
            XCTAssertTrue(ranges.first?.lowerBound == 0, "round \(round): \(ranges)")
            for (range, next) in zip(ranges, ranges.dropFirst()) {
              XCTAssertEqual(range.upperBound, next.lowerBound, "round \(round)")
            }
            XCTAssertGreaterThanOrEqual(ranges.last?.upperBound ?? -1, seen, "round \(round)")
            if seen > 0 {
              XCTAssertEqual(run.keyBegins[.init(head: head, queries: queries)], span.keyBegin)
            }
            XCTAssertEqual(
              run.causalOffsets[.init(head: head, queries: queries)], [tile + span.causalOffset])
            expected += 1
          }
        }
      }
      XCTAssertEqual(run.results.count, expected, "round \(round): tiles of no request")
    }
    XCTAssertGreaterThan(min(units, waves, turns), 50, "all ways of working are met")
  }

  /// What memory is taken for has room for each wave, which has several heads only where
  /// their keys are not more than it should have.
  private func checkRoom(_ schedule: TileSchedule, blocks: Int, _ what: String) {
    for waves in [schedule.units, schedule.waves] {
      for wave in waves { XCTAssertEqual(waves.most.largest(wave.end), waves.most, what) }
    }
    for wave in schedule.waves {
      let heads = schedule.segments(of: wave).reduce(0) {
        $0 + ($1.blockCount > 0 ? $1.heads.count : 0)
      }
      XCTAssertTrue(heads <= 1 || wave.end.block <= blocks, "\(what): \(wave.end.block)")
    }
  }

  func testMemoryHasABoundWhateverTheLength() throws {
    func bytes(_ waves: TileSchedule.Waves) -> Int {
      shape.packedBytes(waves) + shape.partialBytes(waves)
    }
    func bytes(_ length: Int) throws -> Int {
      let span = RequestSpan(
        queryBegin: 0, queryCount: length, keyBegin: 0, keyCount: length, causal: .end)
      return try [1, 2, 16].map { threads in
        let schedule = try TileSchedule(
          [span], numHeads: 16, shape: shape, split: .never, threads: threads)
        return max(bytes(schedule.waves), threads * bytes(schedule.units))
      }.max() ?? 0
    }
    XCTAssertLessThanOrEqual(try bytes(8192), TileSchedule.smallestWaveBytes)
    XCTAssertLessThanOrEqual(try bytes(1 << 20), 5 * TileSchedule.smallestWaveBytes)
  }

  func testSplitsDependOnTheRequestAlone() throws {
    let long = RequestSpan(queryBegin: 0, queryCount: 10, keyBegin: 0, keyCount: 9000)
    let other = RequestSpan(queryBegin: 10, queryCount: 500, keyBegin: 9000, keyCount: 20000)
    var cuts: Set<Int> = []
    for spans in [[long], [other, long]] {
      for threads in [1, 2, 64] {
        let schedule = try TileSchedule(
          spans, numHeads: 2, shape: shape, split: .fixedRanges, threads: threads)
        for segment in schedule.segments
        where segment.request.span == long {
          cuts.insert(segment.request.blocksPerRange)
          XCTAssertGreaterThan(segment.request.ranges, 1)
        }
      }
    }
    XCTAssertEqual(cuts.count, 1)
  }

  /// Keys of 576 and values of 512 fp32 elements: as many as 3 MiB hold.
  func testARangeOfWideKeysStaysInACache() {
    let span = RequestSpan(queryBegin: 0, queryCount: 512, keyBegin: 0, keyCount: 4096)
    func keys(ofBytes bytes: Int) -> Int {
      let shape = TileShape(
        queryTile: 48, keyBlock: 64, packedBlockBytes: 64 * bytes, vHeadDim: 512)
      return SplitRule.never.keysPerRange(span, tilesPerHead: 11, shape)
    }
    XCTAssertEqual(keys(ofBytes: 1088 * 4), 11 * 64)
    XCTAssertEqual(keys(ofBytes: 320 * 2), 4096)
  }

  /// Five ranges of 1024 keys, of which two at a time are in memory.
  func testLastTurnMayHaveFewerRanges() throws {
    let span = RequestSpan(queryBegin: 0, queryCount: 10, keyBegin: 0, keyCount: 5 * 1024)
    let schedule = try TileSchedule(
      [span], numHeads: 1, shape: shape, split: .fixedRanges, threads: 7,
      waveBytes: 5 * 512 / shape.keyBlock * shape.packedBlockBytes)
    XCTAssertEqual(schedule.waves.map(\.turns), [3])
    let run = TracedRun(schedule, headsPerTask: 1)
    let ranges = try XCTUnwrap(run.results[.init(head: 0, queries: 0..<10)])
    XCTAssertEqual(ranges.map(\.upperBound), (1...5).map { $0 * 1024 })
  }

  func testRulesDoNotAskForThreads() throws {
    defer { try? HostSettings.setThreads(0) }
    var cuts: Set<Int> = []
    for threads: Int32 in [1, 3, 64] {
      try HostSettings.setThreads(threads)
      let schedule = try TileSchedule(
        [RequestSpan(queryBegin: 0, queryCount: 100, keyBegin: 0, keyCount: 40_000)], numHeads: 16,
        shape: shape, split: .byCost(numHeads: 16), threads: 4)
      for segment in schedule.segments {
        cuts.insert(segment.request.blocksPerRange)
      }
    }
    XCTAssertEqual(cuts.count, 1)
  }

  func testLongestFirstAndLongestTileFirst() throws {
    let short = RequestSpan(
      queryBegin: 0, queryCount: 50, keyBegin: 0, keyCount: 50, causal: .end)
    let long = RequestSpan(
      queryBegin: 50, queryCount: 300, keyBegin: 50, keyCount: 300, causal: .end)
    let shared = try TileSchedule(
      [short, long], numHeads: 1, shape: shape, split: .never, threads: 8)
    XCTAssertEqual(shared.segments(of: shared.waves[0]).map(\.request.span), [long, short])
    let first = shared.attendTask(0, in: shared.waves[0], turn: 0)
    XCTAssertEqual(first?.queries, 338..<350)
    XCTAssertEqual(first?.causalOffset, 288)
    let alone = try TileSchedule(
      [short, long], numHeads: 1, shape: shape, split: .never, threads: 1)
    XCTAssertEqual(alone.units.map { $0.first.request.span }, [long, short])
  }

  /// Of a wave that has them all in memory, two heads of keys, five ranges of 1024 keys.
  func testTilesOfARangeFollowEachOther() throws {
    let span = RequestSpan(queryBegin: 0, queryCount: 100, keyBegin: 0, keyCount: 5 * 1024)
    let schedule = try TileSchedule(
      [span], numHeads: 2, headsPerKeyHead: 4, shape: shape, split: .fixedRanges, threads: 64)
    let wave = try XCTUnwrap(schedule.waves.first)
    let tasks = (0..<wave.taskCount(inTurn: 0)).map { schedule.attendTask($0, in: wave, turn: 0) }
    let places = tasks.compactMap { $0.map { $0.head / 4 * 5 + $0.keys.lowerBound / 1024 } }
    XCTAssertEqual(places, (0..<10).flatMap { Array(repeating: $0, count: 3 * 4) })
  }

  private func randomSpans(_ random: inout SplitMix64) -> [RequestSpan] {
    var (queries, keys) = (0, 0)
    return (0..<random.int(0...6)).map { _ in
      let queryCount = random.pick([
        0, 1, 47, 48, 49, random.int(1...300), random.int(800...2000), random.int(8000...12000),
      ])
      let keyCount = random.pick([
        0, 1, 64, 65, random.int(1...300), random.int(1000...6000), random.int(8000...20000),
        queryCount, queryCount + random.int(0...1100),
      ])
      defer { (queries, keys) = (queries + queryCount, keys + keyCount) }
      return RequestSpan(
        queryBegin: queries, queryCount: queryCount, keyBegin: keys, keyCount: keyCount,
        causal: random.pick([.none, .start, .end]))
    }
  }
}
