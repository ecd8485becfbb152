extension TileSchedule {
  /// Segments for one thread each: for each request as many as it has heads, a few
  /// heads at a time.
  public struct Units: RandomAccessCollection, Sendable {
    struct Run {
      let request: Int
      let firstUnit: Int
      let headsPerUnit: Int
    }

    private let requests: FixedArray<Segment>
    private let runs: FixedArray<Run>
    public let endIndex: Int
    /// The largest numbers that any of them has.
    let most: Numbers

    /// - Parameter count: units there are; those of the last runs may be more.
    init(_ requests: FixedArray<Segment>, _ runs: FixedArray<Run>, count: Int) {
      self.requests = requests
      self.runs = runs
      endIndex = count
      var most = Numbers()
      for run in runs {
        guard run.firstUnit < count else { break }
        let end = Self.unit(run.firstUnit, of: run, requests).end
        most = most.largest(end)
      }
      self.most = most
    }

    public var startIndex: Int { 0 }

    public subscript(unit: Int) -> Segment {
      Self.unit(
        unit, of: runs[lastNumber(in: runs.indices) { runs[$0].firstUnit <= unit }], requests)
    }

    private static func unit(_ unit: Int, of run: Run, _ requests: FixedArray<Segment>) -> Segment {
      let request = requests[run.request]
      let first = (unit - run.firstUnit) * run.headsPerUnit
      return request.narrowed(
        to: first..<Swift.min(first + run.headsPerUnit, request.heads.upperBound),
        splitsPerTurn: 1)
    }
  }
}

extension TileSchedule.Numbers {
  func largest(_ other: Self) -> Self {
    Self(
      block: max(block, other.block), pack: max(pack, other.pack), task: max(task, other.task),
      tile: max(tile, other.tile), partial: max(partial, other.partial))
  }
}
