/// Gathers pairs into waves, splitting a request's heads where a wave is full.
struct WaveBuilder {
  private let requests: TileRequests
  private let blocksPerWave: Int
  /// Most partial results of a wave.
  private let mostPartials: Int
  private var shareCount = 0
  /// Without the one that may take more.
  private var waveCount = 0
  /// nil while only counting.
  private var kept: FixedArray<Share>?
  /// Where a further segment would begin in the wave that may take more.
  private var place = TileSchedule.Place()
  private var isEmpty = true

  private typealias Share = TileSchedule.Waves.Share

  /// - Parameter forEachRest: calls its argument for each request's heads that are to
  ///   go into waves, always the same.
  static func waves(
    _ requests: TileRequests, blocksPerWave: Int,
    of forEachRest: ((_ request: Int, _ heads: Range<Int>) -> Void) -> Void
  ) throws(MLAError) -> TileSchedule.Waves {
    var counter = WaveBuilder(requests, blocksPerWave: blocksPerWave)
    forEachRest { counter.add($0, $1) }
    var builder = WaveBuilder(requests, blocksPerWave: blocksPerWave)
    let shares = try FixedArray<Share>(capacity: counter.shareCount, for: "a schedule's waves")
    builder.kept = shares
    forEachRest { builder.add($0, $1) }
    builder.close()
    return TileSchedule.Waves(requests, builder.kept ?? shares, count: builder.waveCount)
  }

  private init(_ requests: TileRequests, blocksPerWave: Int) {
    self.requests = requests
    self.blocksPerWave = blocksPerWave
    mostPartials = max(
      Self.leastPartialsPerTile,
      Self.partialWaves * blocksPerWave * requests.shape.packedBlockBytes
        / (requests.shape.partialFloats * 4))
  }

  private mutating func add(_ request: Int, _ heads: Range<Int>) {
    let whole = requests.longestFirst[request]
    let head = requests.segment(whole, heads: 0..<1)
    if whole.ranges > 1, head.blockCount > blocksPerWave || head.partialCount > mostPartials {
      return addInTurns(request, heads)
    }
    let headsPerWave = max(1, room(for: head, behind: .init()))
    var rest = heads
    while !rest.isEmpty {
      let room = room(for: head, behind: place)
      if room < 1, !isEmpty {
        close()
      } else if isEmpty, rest.count > headsPerWave {
        // A wave each, but for the last ones, which others may join.
        let waves = (rest.count - 1) / headsPerWave
        let taken = rest.prefix(waves * headsPerWave)
        append(request, taken, headsPerWave: headsPerWave)
        waveCount += waves
        rest = rest.dropFirst(taken.count)
      } else {
        let taken = rest.prefix(max(1, room))
        append(request, taken)
        place = requests.segment(whole, heads: taken, at: place).end
        isEmpty = false
        rest = rest.dropFirst(taken.count)
      }
    }
  }

  /// For how many such heads there is room.
  private func room(for head: TileSchedule.Segment, behind place: TileSchedule.Place) -> Int {
    let blocks =
      head.blockCount == 0 ? Int.max : (blocksPerWave - place.block) / head.blockCount
    let partials =
      head.partialCount == 0 ? Int.max : (mostPartials - place.partial) / head.partialCount
    return min(blocks, partials)
  }

  /// Waves of one segment each: as many heads as have room for a key range and for
  /// their partial results, and where not even one head has room for all of these,
  /// some of its tiles after the others, at the cost of packing the keys again.
  private mutating func addInTurns(_ request: Int, _ heads: Range<Int>) {
    close()
    let whole = requests.longestFirst[request]
    let partials = mostPartials / Self.leastPartialsPerTile
    let mostHeads = min(blocksPerWave / whole.blocksPerRange, partials / whole.tilesPerKeyHead)
    let headCount = max(1, min(heads.count, mostHeads))
    // Ranges side by side are tasks where tiles alone are too few, and partial results.
    let wanted = SplitRule.nominalTasks / (headCount * whole.tilesPerKeyHead)
    let ranges = max(1, min(wanted, blocksPerWave / (headCount * whole.blocksPerRange)))
    let tiles = max(
      Self.fewestTiles,
      Self.leastPartialsPerTile * partials / (headCount * whole.headsPerKeyHead * (ranges + 1)))
    append(request, heads, headsPerWave: headCount, tilesPerWave: tiles, rangesPerTurn: ranges)
    waveCount += (whole.tiles + tiles - 1) / tiles * ((heads.count + headCount - 1) / headCount)
  }

  /// The sum of the turns before and one range's result.
  private static let leastPartialsPerTile = 2
  /// Partial results are worth more memory than packed keys: those of a prompt that
  /// is worked on at once need its keys packed once.
  private static let partialWaves = 4
  /// Attending to a key is little beside packing it if fewer see it.
  private static let fewestTiles = 16

  private mutating func append(
    _ request: Int, _ heads: Range<Int>, headsPerWave: Int = .max, tilesPerWave: Int = .max,
    rangesPerTurn: Int = .max
  ) {
    shareCount += 1
    kept?.append(
      Share(
        request: request, heads: heads, headsPerWave: min(headsPerWave, heads.count),
        tilesPerWave: tilesPerWave, rangesPerTurn: rangesPerTurn, firstWave: waveCount,
        place: place))
  }

  private mutating func close() {
    if !isEmpty { waveCount += 1 }
    place = .init()
    isEmpty = true
  }
}
