extension TileSchedule {
  /// Waves, made out one by one: what they are of is kept once for each request, however
  /// many waves its heads, or the tiles of a very long one, are.
  public struct Waves: RandomAccessCollection, Sendable {
    /// Some heads of a request: a segment of a wave beside others, or waves of their own,
    /// of a few heads each and some tiles, the last ones first, all heads of these before
    /// the next ones.
    struct Share {
      let request: Int
      let heads: Range<Int>
      let headsPerWave: Int
      let tilesPerWave: Int
      let rangesPerTurn: Int
      /// Shares of the same first wave are one wave.
      let firstWave: Int
      /// In that wave.
      let place: Place

      /// Waves of the same tiles.
      var wavesOfHeads: Int { (heads.count + headsPerWave - 1) / headsPerWave }
    }

    private let requests: TileRequests
    private let shares: FixedArray<Share>
    public let endIndex: Int
    /// The furthest places that any of them has.
    private(set) var most = Place()

    /// - Parameter count: waves there are; those of the last shares may be more.
    init(_ requests: TileRequests, _ shares: FixedArray<Share>, count: Int) {
      self.requests = requests
      self.shares = shares
      endIndex = count
      for share in shares {
        guard share.firstWave < count else { break }
        most = most.largest(requests.segment(of: share).end)
        // The last tiles of all may be fewer than others, which have fewer ranges.
        if share.tilesPerWave < requests.longestFirst[share.request].tiles {
          most = most.largest(requests.segment(of: share, wave: share.wavesOfHeads).end)
        }
      }
    }

    public var startIndex: Int { 0 }

    public subscript(index: Int) -> Wave {
      let last = lastNumber(in: shares.indices) { shares[$0].firstWave <= index }
      let firstWave = shares[last].firstWave
      if last == 0 || shares[last - 1].firstWave < firstWave {
        return Wave(requests.segment(of: shares[last], wave: index - firstWave))
      }
      let first = firstNumber(in: 0..<last + 1) { shares[$0].firstWave >= firstWave }
      return Wave(
        first: requests.segment(of: shares[first]), shares: first..<last + 1,
        end: requests.segment(of: shares[last]).end)
    }

    /// The segment of one of these waves that a number belongs to.
    @inline(__always)
    func segment(of number: Int, in wave: Wave, _ count: (Place) -> Int) -> Segment {
      if wave.isOneSegment { return wave.first }
      return requests.segment(
        of: shares[lastNumber(in: wave.shares) { count(shares[$0].place) <= number }])
    }
  }

  /// A plain value, for a unit is made for each pair of request and head.
  public struct Wave: Sendable {
    public let first: Segment
    /// Those of all segments, where there are several.
    fileprivate let shares: Range<Int>
    private let endOfLast: Place

    fileprivate init(_ only: Segment) { self.init(first: only, shares: 0..<0, end: .init()) }

    fileprivate init(first: Segment, shares: Range<Int>, end: Place) {
      (self.first, self.shares, endOfLast) = (first, shares, end)
    }

    fileprivate var isOneSegment: Bool { shares.isEmpty }

    /// Where a further segment would begin.
    @inline(__always)
    var end: Place { isOneSegment ? first.end : endOfLast }

    /// More than 1 in a wave of a single segment only.
    var turns: Int { isOneSegment ? first.turns : 1 }

    func packCount(inTurn turn: Int) -> Int {
      isOneSegment ? first.packCount(inTurn: turn) : endOfLast.pack
    }

    func taskCount(inTurn turn: Int) -> Int {
      isOneSegment ? first.taskCount(inTurn: turn) : endOfLast.task
    }
  }
}

extension TileRequests {
  /// - Parameter wave: counted from the share's first.
  fileprivate func segment(of share: TileSchedule.Waves.Share, wave: Int = 0)
    -> TileSchedule.Segment
  {
    let whole = longestFirst[share.request]
    let (order, step) = wave.quotientAndRemainder(dividingBy: share.wavesOfHeads)
    let head = share.heads.lowerBound + step * share.headsPerWave
    return segment(
      share.tilesPerWave < whole.tiles ? tiles(order, share.tilesPerWave, of: whole) : whole,
      heads: head..<min(head + share.headsPerWave, share.heads.upperBound),
      rangesPerTurn: share.rangesPerTurn, at: share.place)
  }

  /// A request's tiles, so many of each head's at a time, of which those of order 0 are the last.
  private func tiles(_ order: Int, _ count: Int, of request: TileSchedule.Request)
    -> TileSchedule.Request
  {
    let waves = (request.tiles + count - 1) / count
    let begin = (waves - 1 - order) * count * shape.queryTile
    let end = min(begin + count * shape.queryTile, request.span.queryCount)
    return TileSchedule.Request(
      request.span.part(begin..<end), headsPerKeyHead: request.headsPerKeyHead,
      blocksPerRange: request.blocksPerRange, shape)
  }
}
