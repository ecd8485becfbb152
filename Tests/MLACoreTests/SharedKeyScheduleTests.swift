import MLATestSupport
import XCTest

@testable import MLACore

/// The schedule in latent space as a value: every token meets every key that it
/// sees exactly once, in bounded memory, cut by the request alone.
final class SharedKeyScheduleTests: XCTestCase {
  private func shape(_ numHeads: Int, keyHeads: Int = 1) -> SharedKeyShape {
    SharedKeyShape(
      numHeads: numHeads, numKeyHeads: keyHeads, vHeadDim: 32, queryBytes: numHeads * 80,
      keysPerPack: 192)
  }

  func testEachTokenMeetsEachKeyOnce() throws {
    var random = SplitMix64(seed: 71)
    for round in 0..<60 {
      let spans = randomSpans(&random, masks: [.none, .start, .end])
      let keyHeads = random.pick([1, 1, 2, 5])
      let schedule = try SharedKeySchedule(
        spans, shape: shape(random.pick([1, 3, 16, 128, 300]), keyHeads: keyHeads),
        waveBytes: random.pick([1, 1 << 18, 1 << 22]))
      var seen: [Int: [Range<Int>]] = [:]
      for wave in try waves(schedule) {
        for index in 0..<wave.end.task {
          let task = wave.task(index)
          let tile = task.tile
          XCTAssertFalse(task.keys.isEmpty && tile.sharedKeys > 0)
          XCTAssertEqual(task.keys.lowerBound % schedule.shape.keysPerPack, 0)
          for (i, token) in tile.tokens.enumerated() {
            let row = token * keyHeads + tile.keyHead
            seen[row, default: []].append(task.keys)
            if task.isLast {
              seen[row, default: []].append(tile.sharedKeys..<tile.span.keysSeen(by: i))
            }
          }
        }
      }
      for span in spans {
        for row in span.queryBegin * keyHeads..<(span.queryBegin + span.queryCount) * keyHeads {
          // Once at least, though it may see nothing.
          let keys = try XCTUnwrap(seen.removeValue(forKey: row)).filter { !$0.isEmpty }
            .sorted { $0.lowerBound < $1.lowerBound }
          let count = span.keysSeen(by: row / keyHeads - span.queryBegin)
          XCTAssertEqual(keys.first?.lowerBound ?? 0, 0, "round \(round)")
          XCTAssertEqual(keys.last?.upperBound ?? 0, count, "round \(round)")
          for (a, b) in zip(keys, keys.dropFirst()) { XCTAssertEqual(a.upperBound, b.lowerBound) }
        }
      }
      XCTAssertTrue(seen.isEmpty, "rows of no request")
    }
  }

  func testPlacesOfAWaveDoNotOverlap() throws {
    var random = SplitMix64(seed: 72)
    for _ in 0..<30 {
      let schedule = try SharedKeySchedule(
        randomSpans(&random), shape: shape(5, keyHeads: random.pick([1, 3])), waveBytes: random.pick([1 << 16, 1 << 24]))
      for wave in try waves(schedule) {
        var (tokens, partials) = (0, 0)
        for tile in wave.tiles {
          XCTAssertEqual(tile.place.token, tokens)
          XCTAssertEqual(tile.place.partial, partials)
          tokens += tile.tokens.count
          partials += tile.ranges * tile.tokens.count * 5
        }
        XCTAssertEqual([wave.end.token, wave.end.partial], [tokens, partials])
        XCTAssertEqual(wave.groups.first?.lowerBound, 0)
        XCTAssertEqual(wave.groups.last?.upperBound, wave.tiles.count)
        for group in wave.groups {
          let tokens = wave.tiles[group].reduce(0) { $0 + $1.tokens.count }
          XCTAssertTrue((1...SharedKeySchedule.groupTokens).contains(tokens))
        }
        for (a, b) in zip(wave.groups, wave.groups.dropFirst()) {
          XCTAssertEqual(a.upperBound, b.lowerBound)
        }
      }
    }
  }

  /// A batch and a bound change where a tile's work lies, never how it is cut.
  func testCutsDependOnTheRequestAlone() throws {
    let long = RequestSpan(
      queryBegin: 0, queryCount: 37, keyBegin: 0, keyCount: 9000, causal: .end)
    let other = RequestSpan(
      queryBegin: 37, queryCount: 5, keyBegin: 9000, keyCount: 20000, causal: .end)
    func cuts(_ schedule: SharedKeySchedule) throws -> [[Int]] {
      try waves(schedule).flatMap(\.tiles).filter { $0.span.keyBegin == 0 }.map {
        [$0.tokens.lowerBound, $0.tokens.upperBound, $0.sharedKeys, $0.keysPerRange, $0.ranges]
      }
    }
    let alone = try cuts(SharedKeySchedule([long], shape: shape(16), waveBytes: 1 << 30))
    XCTAssertEqual(alone.count, 3)
    XCTAssertEqual(
      try cuts(SharedKeySchedule([other, long], shape: shape(16), waveBytes: 1)), alone)
  }

  /// A single token's context becomes enough tasks for a large host, and a batch
  /// of decoding requests none that others would wait for.
  func testDecodingStepsAreBalanced() throws {
    let one = try SharedKeySchedule(
      [RequestSpan(queryBegin: 0, queryCount: 1, keyBegin: 0, keyCount: 8193)], shape: shape(16),
      waveBytes: 1 << 24)
    XCTAssertGreaterThanOrEqual(try waves(one)[0].end.task, 32)
    var random = SplitMix64(seed: 73)
    var keys = 0
    let batch = (0..<64).map { i in
      let count = random.int(100...4000)
      defer { keys += count }
      return RequestSpan(queryBegin: i, queryCount: 1, keyBegin: keys, keyCount: count)
    }
    let schedule = try SharedKeySchedule(batch, shape: shape(16), waveBytes: 1 << 30)
    let wave = try waves(schedule)[0]
    let sizes = (0..<wave.end.task).map { wave.task($0).keys.count }
    XCTAssertEqual(sizes.reduce(0, +), keys)
    XCTAssertLessThanOrEqual(sizes.max() ?? 0, keys / 256)
  }

  func testMemoryIsBounded() throws {
    let shape = shape(16)
    for keyCount in [100, 8192, 1 << 20] {
      let span = RequestSpan(
        queryBegin: 0, queryCount: 64, keyBegin: 0, keyCount: keyCount, causal: .end)
      let schedule = try SharedKeySchedule([span], shape: shape, waveBytes: 1)
      // No more than the latents, or one range each.
      let oneRange = 256 * shape.partialFloats * 4
      let rows = try waves(schedule).map(\.end.partial).max() ?? 0
      XCTAssertLessThanOrEqual(
        rows * shape.partialFloats * 4, keyCount * shape.partialFloats + oneRange)
      XCTAssertEqual(try waves(schedule).count, 4)
    }
  }

  /// All of them, each with lists of its own.
  private func waves(_ schedule: SharedKeySchedule) throws -> [SharedKeySchedule.Wave] {
    var waves: [SharedKeySchedule.Wave] = []
    var next = try SharedKeySchedule.Waves(schedule)
    while let wave = next.next() {
      XCTAssertLessThanOrEqual(
        wave.end.token * schedule.shape.queryBytes
          + wave.end.partial * schedule.shape.partialFloats * 4, schedule.waveBytes)
      XCTAssertLessThanOrEqual(
        max(wave.end.task, wave.groups.count * schedule.shape.numHeads), schedule.mostTasks)
      waves.append(try wave.copy())
    }
    return waves
  }

  private func randomSpans(_ random: inout SplitMix64, masks: [CausalMask] = [.end])
    -> [RequestSpan]
  {
    var (queries, keys) = (0, 0)
    return (0..<random.int(1...6)).map { _ in
      let queryCount = random.pick([1, 2, 15, 16, 17, 64, 65, random.int(1...200)])
      let context = random.pick([0, 1, 191, 192, 193, random.int(1...9000)])
      // With a mask of another kind queries may be more than keys.
      let keyCount = masks.count > 1 && random.chance(0.3) ? context : queryCount + context
      defer { (queries, keys) = (queries + queryCount, keys + keyCount) }
      return RequestSpan(
        queryBegin: queries, queryCount: queryCount, keyBegin: keys, keyCount: keyCount,
        causal: random.pick(masks))
    }
  }
}

extension SharedKeySchedule.Wave {
  fileprivate func copy() throws -> Self {
    var copy = self
    copy.tiles = try FixedArray(
      copying: UnsafeBufferPointer(start: tiles.pointer, count: tiles.count), for: "tiles")
    copy.groups = try FixedArray(
      copying: UnsafeBufferPointer(start: groups.pointer, count: groups.count), for: "groups")
    return copy
  }
}
