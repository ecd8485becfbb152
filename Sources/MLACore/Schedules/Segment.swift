extension TileSchedule {
  /// A request's share of a wave.
  public struct Segment: Equatable, Sendable {
    /// Of its tiles, those that are in the wave.
    public let request: Request
    /// Of keys.
    public let heads: Range<Int>
    private let rangesPerTurn: Int
    /// Most heads that are packed for at a time.
    let headsPerPack: Int
    /// Where it begins in its wave.
    let place: Place

    init(
      _ request: Request, heads: Range<Int>, rangesPerTurn: Int, headsPerPack: Int, at place: Place
    ) {
      self.request = request
      self.heads = heads
      self.rangesPerTurn = min(rangesPerTurn, request.ranges)
      self.headsPerPack = headsPerPack
      self.place = place
    }

    public var turns: Int { (request.ranges + rangesPerTurn - 1) / rangesPerTurn }
    /// A head's, in memory at a time.
    var blocksPerTurn: Int { min(rangesPerTurn * request.blocksPerRange, request.blocks) }
    var blockCount: Int { heads.count * blocksPerTurn }
    var tileCount: Int { heads.count * request.tilesPerKeyHead }
    /// The sum of the turns before, and one for each range of the turn; the first
    /// turn's first range is the beginning of the sum.
    var partialsPerTile: Int {
      request.ranges > 1 ? min(request.ranges, rangesPerTurn + 1) : 0
    }
    var partialCount: Int { tileCount * partialsPerTile }

    /// Where the next segment begins.
    @inline(__always)
    var end: Place {
      Place(
        block: place.block + blockCount, pack: place.pack + packsPerBlock * blocksPerTurn,
        task: place.task + tileCount * rangesPerTurn, tile: place.tile + tileCount,
        partial: place.partial + partialCount)
    }

    func ranges(inTurn turn: Int) -> Range<Int> {
      turn * rangesPerTurn..<min((turn + 1) * rangesPerTurn, request.ranges)
    }

    func blocks(inTurn turn: Int) -> Range<Int> {
      let first = turn * rangesPerTurn * request.blocksPerRange
      return first..<min(first + blocksPerTurn, request.blocks)
    }

    func taskCount(inTurn turn: Int) -> Int { tileCount * ranges(inTurn: turn).count }

    func packCount(inTurn turn: Int) -> Int { packsPerBlock * blocks(inTurn: turn).count }

    private var packsPerBlock: Int { (heads.count + headsPerPack - 1) / headsPerPack }
  }

  /// A place in a wave, by what is counted through it: that of a first turn, than which
  /// no other has more.
  public struct Place: Equatable, Sendable {
    /// Packed blocks.
    var block = 0
    /// Tasks of packing.
    var pack = 0
    /// Tasks of attending.
    var task = 0
    var tile = 0
    /// Partial results.
    var partial = 0

    /// The later one, number by number.
    func largest(_ other: Self) -> Self {
      Self(
        block: max(block, other.block), pack: max(pack, other.pack), task: max(task, other.task),
        tile: max(tile, other.tile), partial: max(partial, other.partial))
    }
  }
}
