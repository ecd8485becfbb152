@testable import MLACore
import MLATestSupport
import XCTest

/// The schedule as a value: every pair of a query and a key that it sees is
/// worked on exactly once, in bounded memory.
final class TileScheduleTests: XCTestCase {
  private let shape = TileShape(queryTile: 48, keyBlock: 64, packedBlockBytes: 4096, vHeadDim: 8)

  func testEachQueryMeetsEachKeyOnce() {
    var random = SplitMix64(seed: 11)
    var (units, waves) = (0, 0)
    for round in 0..<80 {
      let spans = randomSpans(&random)
      let headsPerTask = random.int(1...4)
      let schedule = TileSchedule(
        spans, numHeads: 3, isCausal: false, shape: shape,
        split: random.pick([.never, .fixedRanges, .byCost(numHeads: 3)]),
        threads: random.pick([1, 2, 7]), headsPerUnit: headsPerTask,
        waveBytes: random.pick([1, 5 * 4096, 300 * 4096, 1 << 24]))
      (units, waves) = (units + schedule.units.count, waves + schedule.waves.count)
      var met: [String: Int] = [:]
      for step in steps(schedule, headsPerTask: headsPerTask) {
        XCTAssertLessThanOrEqual(
          step.packed.keys.max() ?? -1, step.blockCount - 1, "round \(round): beyond its memory")
        for task in step.tasks {
          let span = spans.first { $0.queryCount > 0 && $0.queryBegin <= task.queries.lowerBound
            && task.queries.upperBound <= $0.queryBegin + $0.queryCount }
          guard let span else { return XCTFail("round \(round): a task of no request") }
          XCTAssertTrue(task.keys.isEmpty || task.keys.lowerBound % shape.keyBlock == 0)
          for block in Set(task.keys.map { $0 / shape.keyBlock }) {
            let pack = step.packed[task.firstBlock + block]
            XCTAssertEqual(pack?.head, task.head)
            XCTAssertEqual(pack?.keys.lowerBound, span.keyBegin + block * shape.keyBlock)
          }
          met["\(task.head) \(task.queries)", default: 0] += task.keys.count
        }
      }
      for span in spans where span.queryCount > 0 {
        for head in 0..<3 {
          for tile in stride(from: 0, to: span.queryCount, by: 48) {
            let begin = span.queryBegin + tile
            let end = min(begin + 48, span.queryBegin + span.queryCount)
            XCTAssertEqual(met["\(head) \(begin..<end)"], span.keyCount, "round \(round)")
          }
        }
      }
    }
    XCTAssertGreaterThan(min(units, waves), 50, "both ways of working are met")
  }

  func testCombineTasksNameTheirTilesPartials() {
    let spans = [
      RequestSpan(queryBegin: 0, queryCount: 100, keyBegin: 0, keyCount: 5000),
      RequestSpan(queryBegin: 100, queryCount: 20, keyBegin: 5000, keyCount: 10),
    ]
    for threads in [1, 3] {
      let schedule = TileSchedule(
        spans, numHeads: 2, isCausal: false, shape: shape, split: .fixedRanges, threads: threads)
      for wave in schedule.waves {
        let tasks = (0..<wave.taskCount).map { schedule.attendTask($0, in: wave) }
        let combines = (0..<wave.tileCount).map { schedule.combineTask($0, in: wave) }
        check(tasks, combines, partialCount: wave.partialCount)
      }
      for unit in schedule.units {
        let tasks = (0..<unit.splits).flatMap { split in
          (0..<unit.tileCount).map { schedule.attendTask($0, split: split, of: unit) }
        }
        let combines = (0..<unit.tileCount).map { schedule.combineTask($0, of: unit) }
        check(tasks, combines, partialCount: unit.partialCount)
      }
      XCTAssertFalse(threads == 1 ? schedule.units.isEmpty : schedule.waves.isEmpty)
    }
  }

  private func check(_ tasks: [AttendTask], _ combines: [CombineTask], partialCount: Int) {
    var partials: [String: [Int]] = [:]
    for task in tasks {
      if let partial = task.partial {
        partials["\(task.head) \(task.queries)", default: []].append(partial)
      }
    }
    for task in combines where task.splits > 1 {
      XCTAssertEqual(
        partials["\(task.head) \(task.queries)"],
        Array(task.firstPartial..<task.firstPartial + task.splits))
    }
    XCTAssertEqual(Set(partials.values.joined()).count, partialCount)
  }

  func testMemoryDoesNotGrowWithTheSquareOfTheLength() {
    func bytes(_ length: Int) -> Int {
      let span = RequestSpan(queryBegin: 0, queryCount: length, keyBegin: 0, keyCount: length)
      return [1, 2, 16].map { threads in
        let schedule = TileSchedule(
          [span], numHeads: 16, isCausal: true, shape: shape, split: .never, threads: threads)
        return max(
          schedule.bytesPerWave + schedule.partialBytesPerWave,
          threads * (schedule.bytesPerUnit + schedule.partialBytesPerUnit))
      }.max() ?? 0
    }
    XCTAssertLessThanOrEqual(bytes(8192), TileSchedule.smallestWaveBytes)
    XCTAssertLessThanOrEqual(bytes(1 << 20), (1 << 20) / 64 * 4096)
  }

  func testSplitsDependOnTheRequestAlone() {
    let long = RequestSpan(queryBegin: 0, queryCount: 10, keyBegin: 0, keyCount: 9000)
    let other = RequestSpan(queryBegin: 10, queryCount: 500, keyBegin: 9000, keyCount: 20000)
    var splits: Set<Int> = []
    for spans in [[long], [other, long]] {
      for threads in [1, 2, 64] {
        let schedule = TileSchedule(
          spans, numHeads: 2, isCausal: false, shape: shape, split: .fixedRanges, threads: threads)
        let segments = schedule.units + schedule.waves.flatMap(\.segments)
        for segment in segments where segment.span == long {
          splits.insert(segment.blocksPerSplit)
          XCTAssertGreaterThan(segment.splits, 1)
        }
      }
    }
    XCTAssertEqual(splits.count, 1)
  }

  func testLongestFirstAndLongestTileFirst() {
    let short = RequestSpan(queryBegin: 0, queryCount: 50, keyBegin: 0, keyCount: 50)
    let long = RequestSpan(queryBegin: 50, queryCount: 300, keyBegin: 50, keyCount: 300)
    let shared = TileSchedule(
      [short, long], numHeads: 1, isCausal: true, shape: shape, split: .never, threads: 8)
    XCTAssertEqual(shared.waves[0].segments.map(\.span), [long, short])
    let first = shared.attendTask(0, in: shared.waves[0])
    XCTAssertEqual(first.queries, 338..<350)
    XCTAssertEqual(first.causalOffset, 288)
    let alone = TileSchedule(
      [short, long], numHeads: 1, isCausal: true, shape: shape, split: .never, threads: 1)
    XCTAssertEqual(alone.units.map(\.span), [long, short])
  }

  /// What is packed before some tasks are worked on: a unit's key range or a wave.
  private struct Step {
    var packed: [Int: (head: Int, keys: Range<Int>)] = [:]
    var tasks: [AttendTask] = []
    let blockCount: Int

    mutating func add(_ pack: PackTask) {
      for (i, head) in pack.heads.enumerated() {
        let block = pack.firstBlock + i * pack.blockStride
        XCTAssertNil(packed.updateValue((head, pack.keys), forKey: block))
      }
    }
  }

  private func steps(_ schedule: TileSchedule, headsPerTask: Int) -> [Step] {
    var steps: [Step] = []
    for unit in schedule.units {
      XCTAssertLessThanOrEqual(unit.heads.count, headsPerTask)
      for split in 0..<unit.splits {
        var step = Step(blockCount: unit.unitBlockCount)
        let first = split * unit.blocksPerSplit
        for block in first..<min(first + unit.blocksPerSplit, unit.blocksPerHead) {
          step.add(schedule.packTask(block, of: unit))
        }
        step.tasks = (0..<unit.tileCount).map { schedule.attendTask($0, split: split, of: unit) }
        steps.append(step)
      }
    }
    for wave in schedule.waves {
      var step = Step(blockCount: wave.blockCount)
      schedule.packTasks(in: wave, headsPerTask: headsPerTask).forEach { step.add($0) }
      XCTAssertEqual(step.packed.count, wave.blockCount)
      step.tasks = (0..<wave.taskCount).map { schedule.attendTask($0, in: wave) }
      steps.append(step)
    }
    return steps
  }

  private func randomSpans(_ random: inout SplitMix64) -> [RequestSpan] {
    var (queries, keys) = (0, 0)
    return (0..<random.int(0...6)).map { _ in
      let queryCount = random.pick([0, 1, 47, 48, 49, random.int(1...300)])
      let keyCount = random.pick([0, 1, 64, 65, random.int(1...300), random.int(1000...6000)])
      defer { (queries, keys) = (queries + queryCount, keys + keyCount) }
      return RequestSpan(
        queryBegin: queries, queryCount: queryCount, keyBegin: keys, keyCount: keyCount)
    }
  }
}
