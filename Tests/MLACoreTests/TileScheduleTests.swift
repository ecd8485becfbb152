@testable import MLACore
import MLATestSupport
import XCTest

/// The schedule as a value: every pair of a query and a key that it sees is
/// worked on exactly once, in bounded memory.
final class TileScheduleTests: XCTestCase {
  private let shape = TileShape(queryTile: 48, keyBlock: 64, packedBlockBytes: 4096, vHeadDim: 8)

  func testEachQueryMeetsEachKeyOnce() {
    var random = SplitMix64(seed: 11)
    for round in 0..<60 {
      let spans = randomSpans(&random)
      let split: SplitRule = random.pick([.never, .fixedRanges, .byCost(numHeads: 3)])
      let schedule = TileSchedule(
        spans, numHeads: 3, isCausal: false, shape: shape, split: split,
        waveBytes: random.pick([1, 5 * 4096, 1 << 20]))
      var met: [String: Int] = [:]
      for wave in schedule.waves {
        let packed = Dictionary(
          uniqueKeysWithValues: schedule.packTasks(in: wave, headsPerTask: random.int(1...4))
            .flatMap { task in
              task.heads.enumerated().map { i, head in
                (task.firstBlock + i * task.blockStride, (head: head, keys: task.keys))
              }
            })
        XCTAssertEqual(packed.count, wave.blockCount)
        for index in 0..<wave.taskCount {
          let task = schedule.attendTask(index, in: wave)
          let span = spans.first { $0.queryCount > 0 && $0.queryBegin <= task.queries.lowerBound
            && task.queries.upperBound <= $0.queryBegin + $0.queryCount }
          guard let span else { return XCTFail("round \(round): a task of no request") }
          XCTAssertTrue(task.keys.isEmpty || task.keys.lowerBound % shape.keyBlock == 0)
          for block in Set(task.keys.map { $0 / shape.keyBlock }) {
            let pack = packed[task.firstBlock + block]
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
  }

  func testCombineTasksNameTheirTilesPartials() {
    let spans = [
      RequestSpan(queryBegin: 0, queryCount: 100, keyBegin: 0, keyCount: 5000),
      RequestSpan(queryBegin: 100, queryCount: 20, keyBegin: 5000, keyCount: 10),
    ]
    let schedule = TileSchedule(
      spans, numHeads: 2, isCausal: false, shape: shape, split: .fixedRanges)
    for wave in schedule.waves {
      var partials: [String: [Int]] = [:]
      for index in 0..<wave.taskCount {
        let task = schedule.attendTask(index, in: wave)
        if let partial = task.partial {
          partials["\(task.head) \(task.queries)", default: []].append(partial)
        }
      }
      for index in 0..<wave.tileCount {
        let task = schedule.combineTask(index, in: wave)
        guard task.splits > 1 else { continue }
        XCTAssertEqual(
          partials["\(task.head) \(task.queries)"],
          Array(task.firstPartial..<task.firstPartial + task.splits))
      }
      XCTAssertEqual(Set(partials.values.joined()).count, wave.partialCount)
    }
  }

  func testMemoryDoesNotGrowWithTheSquareOfTheLength() {
    func bytes(_ length: Int) -> Int {
      let span = RequestSpan(queryBegin: 0, queryCount: length, keyBegin: 0, keyCount: length)
      let schedule = TileSchedule([span], numHeads: 16, isCausal: true, shape: shape, split: .never)
      return schedule.packedBytes + schedule.partialBytes
    }
    XCTAssertLessThanOrEqual(bytes(8192), TileSchedule.smallestWaveBytes)
    XCTAssertLessThanOrEqual(bytes(1 << 20), (1 << 20) / 64 * 4096)
  }

  func testSplitsDependOnTheRequestAlone() {
    let long = RequestSpan(queryBegin: 0, queryCount: 10, keyBegin: 0, keyCount: 9000)
    let alone = TileSchedule([long], numHeads: 2, isCausal: false, shape: shape, split: .fixedRanges)
    let other = RequestSpan(queryBegin: 10, queryCount: 500, keyBegin: 9000, keyCount: 20000)
    let batch = TileSchedule(
      [other, long], numHeads: 2, isCausal: false, shape: shape, split: .fixedRanges)
    let splits = batch.waves.flatMap(\.segments).filter { $0.span == long }.map(\.keysPerSplit)
    XCTAssertEqual(Set(splits), Set(alone.waves.flatMap(\.segments).map(\.keysPerSplit)))
    XCTAssertGreaterThan(alone.waves[0].segments[0].splits, 1)
  }

  func testLongestFirstAndLongestTileFirst() {
    let short = RequestSpan(queryBegin: 0, queryCount: 50, keyBegin: 0, keyCount: 50)
    let long = RequestSpan(queryBegin: 50, queryCount: 300, keyBegin: 50, keyCount: 300)
    let schedule = TileSchedule(
      [short, long], numHeads: 1, isCausal: true, shape: shape, split: .never)
    XCTAssertEqual(schedule.waves[0].segments.map(\.span), [long, short])
    let first = schedule.attendTask(0, in: schedule.waves[0])
    XCTAssertEqual(first.queries, 338..<350)
    XCTAssertEqual(first.causalOffset, 288)
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
