import MLATestSupport
import XCTest

@testable import MLACore

/// Schedules of all that validation lets through, and of more: no arithmetic overflows,
/// and no place lies beyond what the memory is made for.
final class ScheduleLimitTests: XCTestCase {
  private let longest = Int(Int32.max)

  func testTileSchedulesAtTheirLimits() throws {
    var random = SplitMix64(seed: 81)
    var (units, waves, turns, parts) = (0, 0, 0, 0)
    for _ in 0..<4000 {
      let shape = TileShape(
        queryTile: random.pick([12, 48, 1024]), keyBlock: random.pick([16, 64]),
        packedBlockBytes: random.pick([64, 40_960, 64 << 20]), vHeadDim: random.pick([1, 128, 65536]))
      let numHeads = random.pick([1, 7, 2892, 65536])
      // No output has more elements.
      let group = max(
        1, min(65536 / numHeads, BatchSize.mostElements / (longest * shape.vHeadDim)))
      let threads = random.pick([1, 2, 60, 1024])
      let schedule = try TileSchedule(
        randomSpans(&random), numHeads: numHeads,
        headsPerKeyHead: random.pick([1, group]), shape: shape,
        split: random.pick([.never, .fixedRanges, .byCost(numHeads: numHeads)]), threads: threads,
        headsPerUnit: random.pick([1, 4]),
        waveBytes: random.pick([1, 1 << 20, TileSchedule.waveBytes(threads: threads), 1 << 44]))
      units += schedule.units.isEmpty ? 0 : 1
      waves += schedule.waves.isEmpty ? 0 : 1
      XCTAssertEqual(schedule.unitGroups.last?.upperBound ?? 0, schedule.units.count)
      for wave in check(schedule.units, schedule) {
        let segment = wave.first
        XCTAssertEqual(wave.end, segment.end, "a unit is one segment")
        XCTAssertTrue(wave.packCount(inTurn: 0) <= segment.blocksPerTurn, "packed for all heads")
      }
      for wave in check(schedule.waves, schedule) {
        turns += wave.turns > 1 ? 1 : 0
        parts += wave.first.request.tiles * shape.queryTile < longest / 2 ? 1 : 0
      }
    }
    XCTAssertGreaterThan(min(units, waves, turns, parts), 100, "all ways of working are met")
  }

  /// Some of the waves, checked.
  private func check(_ waves: TileSchedule.Waves, _ schedule: TileSchedule) -> [TileSchedule.Wave] {
    [0, waves.count / 2, waves.count - 1].filter(waves.indices.contains).map { index in
      let wave = waves[index]
      XCTAssertEqual(waves.most.largest(wave.end), waves.most)
      for turn in [0, wave.turns - 1] { checkLast(of: wave, turn, schedule) }
      return wave
    }
  }

  /// The last pack, tile and result of a turn lie within the wave's memory.
  private func checkLast(of wave: TileSchedule.Wave, _ turn: Int, _ schedule: TileSchedule) {
    if wave.packCount(inTurn: turn) > 0 {
      let pack = schedule.packTask(wave.packCount(inTurn: turn) - 1, in: wave, turn: turn)
      let last = pack.firstBlock + (pack.heads.count - 1) * pack.blockStride
      XCTAssertTrue((0..<wave.end.block).contains(last))
    }
    if let task = schedule.attendTask(wave.taskCount(inTurn: turn) - 1, in: wave, turn: turn),
      let partial = task.partial
    {
      XCTAssertTrue((0..<wave.end.partial).contains(partial))
    }
    let combined = schedule.combineTask(wave.end.tile - 1, in: wave, turn: turn)
    XCTAssertLessThanOrEqual(
      combined.added.isEmpty ? 0 : combined.added.upperBound, wave.end.partial)
  }

  func testSharedKeySchedulesAtTheirLimits() throws {
    var random = SplitMix64(seed: 82)
    for _ in 0..<1000 {
      let (heads, rank) = (random.pick([1, 16, 256, 65536]), random.pick([1, 512, 65536]))
      let shape = SharedKeyShape(
        numHeads: heads, numKeyHeads: random.pick([1, 65536 / heads]), vHeadDim: rank,
        queryBytes: heads * (rank + random.pick([0, 65536])) * random.pick([2, 4]),
        keysPerPack: random.pick([16, 512]))
      let spans = randomSpans(&random).map {
        RequestSpan(
          queryBegin: $0.queryBegin, queryCount: $0.queryCount, keyBegin: $0.keyBegin,
          keyCount: $0.keyCount + $0.queryCount, causal: .end)
      }
      let schedule = try SharedKeySchedule(
        spans, shape: shape, waveBytes: random.pick([1, 16 << 20, 1 << 62]))
      let memory = SharedKeyMemory(
        schedule, scratchBytes: 1 << 40, threads: random.pick([1, HostSettings.maximumThreads]))
      XCTAssertGreaterThan(memory.bytes, 0)
      var waves = try SharedKeySchedule.Waves(schedule)
      for _ in 0..<3 {
        guard let wave = waves.next() else { break }
        XCTAssertLessThanOrEqual(
          wave.end.token * shape.queryBytes + wave.end.partial * shape.partialFloats * 4,
          schedule.waveBytes)
        XCTAssertTrue(wave.task(wave.end.task - 1).isLast)
        // A range has at least half of the keys that make as many as are wanted.
        let ranges = wave.tiles.map(\.ranges).max() ?? 0
        XCTAssertLessThanOrEqual(ranges, 2 * SplitRule.nominalTasks)
      }
    }
  }

  func testCostsAtTheirLimits() {
    let longest = LayerWork(
      newTokens: longest, contextLen: longest, numHeads: 65536, qkNopeHeadDim: 65536,
      qkRopeHeadDim: 65536, vHeadDim: 65536, kvLoraRank: 65536)
    let cost = FormCost(
      lanes: 32, project: 1, attend: 1, attendLatents: 1, packLatents: 1, latentResult: 1)
    XCTAssertTrue(cost.upProjected(longest).isFinite && cost.absorbed(longest).isFinite)
    let span = RequestSpan(
      queryBegin: 0, queryCount: self.longest, keyBegin: 0, keyCount: 2 * self.longest,
      causal: .end)
    let pair = TileCost.ofHead(span, headsPerKeyHead: 65536)
    let pairs = [CostRun(cost: pair, count: BatchSize.mostPairs)]
    for threads in [1, 3, HostSettings.maximumThreads] {
      XCTAssertGreaterThan(UnitChoice.soonestFinish(pairs, threads: threads), 0)
    }
  }

  /// Up to 2^31 - 1 queries and keys together each, as offsets of 32 bits allow.
  private func randomSpans(_ random: inout SplitMix64) -> [RequestSpan] {
    var (queries, keys) = (0, 0)
    return (0..<random.int(1...5)).map { _ in
      let queryCount = random.pick([0, 1, 49, 370_000, random.int(0...longest), longest])
      let keyCount = random.pick([0, 1, 8193, random.int(0...longest), longest])
      let (queryRest, keyRest) = (longest - queries, longest - keys)
      let span = RequestSpan(
        queryBegin: queries, queryCount: min(queryCount, queryRest), keyBegin: keys,
        keyCount: min(keyCount, keyRest), causal: random.pick([.none, .start, .end]))
      (queries, keys) = (queries + span.queryCount, keys + span.keyCount)
      return span
    }
  }
}
