extension TileSchedule {
  /// Heads that all threads work on together. What they are of is kept once for each
  /// request, however many waves its heads, or the parts of a very long one, are.
  public struct Waves: RandomAccessCollection, Sendable {
    /// Some heads of a request.
    struct Share {
      let request: Int
      let heads: Range<Int>
      let first: Numbers
    }

    /// One wave of some shares, or some waves of one: of a few heads each, and some
    /// tiles of a request, the last ones first, all heads of these before the next ones.
    struct Run {
      let firstWave: Int
      let firstShare: Int
      let shareCount: Int
      let headsPerWave: Int
      let tilesPerPart: Int
      let splitsPerTurn: Int
    }

    private let requests: TileRequests
    private let shares: FixedArray<Share>
    private let runs: FixedArray<Run>
    public let endIndex: Int
    /// The largest numbers that any of them has.
    private(set) var most = Numbers()

    init(
      _ requests: TileRequests, _ shares: FixedArray<Share>, _ runs: FixedArray<Run>, count: Int
    ) {
      self.requests = requests
      self.shares = shares
      self.runs = runs
      endIndex = count
      for run in runs {
        most = most.largest(wave(0, of: run).end)
        // Of two parts the first one's tiles may be fewer, the other's have fewer ranges.
        let request = requests.segments[shares[run.firstShare].request]
        if run.tilesPerPart < request.tilesPerHead {
          most = most.largest(wave(headGroups(run), of: run).end)
        }
      }
    }

    public var startIndex: Int { 0 }

    public subscript(index: Int) -> Wave {
      let run = runs[lastNumber(in: runs.indices) { runs[$0].firstWave <= index }]
      return wave(index - run.firstWave, of: run)
    }

    private func headsPerWave(_ run: Run) -> Int {
      Swift.min(run.headsPerWave, shares[run.firstShare].heads.count)
    }

    private func headGroups(_ run: Run) -> Int {
      let step = headsPerWave(run)
      return (shares[run.firstShare].heads.count + step - 1) / step
    }

    private func wave(_ number: Int, of run: Run) -> Wave {
      let first = segment(number, of: run)
      if run.shareCount == 1 { return Wave(first) }
      return Wave(
        first, shares.part(run.firstShare..<run.firstShare + run.shareCount), requests.segments)
    }

    /// The first of a wave.
    private func segment(_ number: Int, of run: Run) -> Segment {
      let share = shares[run.firstShare]
      let request = requests.segments[share.request]
      let (order, group) = number.quotientAndRemainder(dividingBy: headGroups(run))
      let first = share.heads.lowerBound + group * headsPerWave(run)
      let heads = first..<Swift.min(first + headsPerWave(run), share.heads.upperBound)
      let part = self.part(order, run.tilesPerPart, of: request)
      return part.narrowed(to: heads, splitsPerTurn: Swift.min(run.splitsPerTurn, part.splits))
    }

    /// The last tiles are the part of order 0. Tiles and key ranges are those of the
    /// whole request.
    private func part(_ order: Int, _ tiles: Int, of request: Segment) -> Segment {
      if tiles >= request.tilesPerHead { return request }
      let span = request.span
      let parts = (request.tilesPerHead + tiles - 1) / tiles
      let begin = (parts - 1 - order) * tiles * requests.shape.queryTile
      let end = Swift.min(begin + tiles * requests.shape.queryTile, span.queryCount)
      let unseen = requests.isCausal ? span.queryCount - end : 0
      return Segment(
        RequestSpan(
          queryBegin: span.queryBegin + begin, queryCount: end - begin, keyBegin: span.keyBegin,
          keyCount: Swift.max(0, span.keyCount - unseen)),
        heads: request.heads, blocksPerSplit: request.blocksPerSplit,
        headsPerPack: request.headsPerPack, requests.shape)
    }
  }

  /// What is worked on at a time: packed, attended to, combined.
  public struct Wave: Sendable {
    private let first: Segment
    private let shares: FixedArray<Waves.Share>
    private let requests: FixedArray<Segment>
    let end: Numbers

    fileprivate init(_ only: Segment) {
      (first, shares, requests) = (only, .init(), .init())
      end = only.end
    }

    fileprivate init(
      _ first: Segment, _ shares: FixedArray<Waves.Share>, _ requests: FixedArray<Segment>
    ) {
      (self.first, self.shares, self.requests) = (first, shares, requests)
      end = Self.segment(shares[shares.count - 1], requests).end
    }

    /// More than 1 in a wave of a single segment only.
    public var turns: Int { shares.isEmpty ? first.turns : 1 }
    public var blockCount: Int { end.block }
    /// Of the first turn; none has more.
    public var taskCount: Int { end.task }
    public var tileCount: Int { end.tile }
    public var partialCount: Int { end.partial }

    func taskCount(inTurn turn: Int) -> Int {
      turn == 0 ? end.task : first.taskCount(inTurn: turn)
    }

    func packCount(inTurn turn: Int) -> Int {
      turn == 0 ? end.pack : first.packCount(inTurn: turn)
    }

    var segmentCount: Int { Swift.max(1, shares.count) }

    public func segment(_ index: Int) -> Segment {
      index == 0 ? first : Self.segment(shares[index], requests)
    }

    /// The segment that a number belongs to.
    func segment(of number: Int, _ first: (Numbers) -> Int) -> Segment {
      if segmentCount == 1 { return self.first }
      return segment(lastNumber(in: 0..<segmentCount) { first(shares[$0].first) <= number })
    }

    private static func segment(_ share: Waves.Share, _ requests: FixedArray<Segment>) -> Segment {
      let request = requests[share.request]
      return request.narrowed(
        to: share.heads, splitsPerTurn: request.splits, behind: share.first)
    }
  }
}
