@testable import MLACore
import XCTest

/// A schedule carried out with names instead of numbers: what is packed where, and
/// which key ranges have come into each result.
struct TracedRun {
  struct Tile: Hashable {
    let head: Int
    let queries: Range<Int>
  }

  /// In the order in which they were added.
  private(set) var results: [Tile: [Range<Int>]] = [:]
  /// The row of k that each tile took for its request's first.
  private(set) var keyBegins: [Tile: Int] = [:]
  /// What each tile was told of the keys that its queries see; one, whatever its ranges.
  private(set) var causalOffsets: [Tile: Set<Int>] = [:]

  private let schedule: TileSchedule
  private var packed: [Int: (head: Int, keys: Range<Int>)] = [:]
  private var partials: [Int: [Range<Int>]] = [:]

  init(_ schedule: TileSchedule, headsPerTask: Int) {
    self.schedule = schedule
    for unit in schedule.units {
      XCTAssertLessThanOrEqual(unit.first.heads.count, headsPerTask)
      XCTAssertLessThanOrEqual(unit.packCount(inTurn: 0), unit.first.blocksPerTurn)
      carryOut(unit)
    }
    for wave in schedule.waves { carryOut(wave) }
  }

  private mutating func carryOut(_ wave: TileSchedule.Wave) {
    for turn in 0..<wave.turns {
      packed = [:]
      schedule.packTasks(in: wave, turn: turn).forEach { pack($0) }
      for task in 0..<wave.taskCount(inTurn: turn) {
        attend(schedule.attendTask(task, in: wave, turn: turn))
      }
      for tile in 0..<wave.end.tile { combine(schedule.combineTask(tile, in: wave, turn: turn)) }
      XCTAssertLessThan(packed.keys.max() ?? -1, wave.end.block)
      XCTAssertLessThan(partials.keys.max() ?? -1, wave.end.partial)
    }
    partials = [:]
  }

  private mutating func pack(_ task: PackTask) {
    for (i, head) in task.heads.enumerated() {
      let block = task.firstBlock + i * task.blockStride
      XCTAssertNil(packed.updateValue((head, task.keys), forKey: block))
    }
  }

  private mutating func attend(_ task: AttendTask?) {
    guard let task else { return }
    let tile = Tile(head: task.head, queries: task.queries)
    causalOffsets[tile, default: []].insert(task.causalOffset)
    let keyBlock = schedule.shape.keyBlock
    XCTAssertTrue(task.keys.isEmpty || task.keys.lowerBound % keyBlock == 0)
    for block in stride(from: task.keys.lowerBound, to: task.keys.upperBound, by: keyBlock) {
      let pack = packed[task.firstBlock + block / keyBlock]
      XCTAssertEqual(pack?.head, task.head / schedule.headsPerKeyHead)
      XCTAssertEqual(pack?.keys.count, min(keyBlock, task.keys.upperBound - block))
      let begin = (pack?.keys.lowerBound ?? -1) - block
      XCTAssertEqual(keyBegins[tile, default: begin], begin)
      keyBegins[tile] = begin
    }
    if let partial = task.partial {
      partials[partial] = [task.keys]
    } else {
      XCTAssertNil(results.updateValue([task.keys], forKey: tile), "a tile twice")
    }
  }

  private mutating func combine(_ task: CombineTask) {
    guard !task.added.isEmpty else { return }
    // What was added is not to be met again.
    for added in task.added {
      let ranges = partials.removeValue(forKey: added) ?? []
      partials[task.sum]?.append(contentsOf: ranges)
    }
    guard task.isLast else { return }
    let tile = Tile(head: task.head, queries: task.queries)
    XCTAssertNil(results.updateValue(partials.removeValue(forKey: task.sum) ?? [], forKey: tile))
  }
}

extension TileSchedule {
  func packTasks(in wave: Wave, turn: Int) -> [PackTask] {
    (0..<wave.packCount(inTurn: turn)).map { packTask($0, in: wave, turn: turn) }
  }

  var segments: [Segment] { (Array(units) + waves).flatMap(segments) }

  /// Those that the wave's tiles are of.
  func segments(of wave: Wave) -> [Segment] {
    (0..<wave.end.tile).reduce(into: []) { segments, tile in
      let segment = waves.segment(of: tile, in: wave) { $0.tile }
      if segments.last != segment { segments.append(segment) }
    }
  }
}
