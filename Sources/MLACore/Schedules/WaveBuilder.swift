/// Gathers pairs into waves, splitting a request's heads where a wave is full.
struct WaveBuilder {
  private let requests: TileRequests
  private let blocksPerWave: Int
  /// Most partial results of a wave.
  private let mostPartials: Int
  private var shareCount = 0
  private var runCount = 0
  private var waveCount = 0
  /// nil while only counting.
  private var kept: (shares: FixedArray<Share>, runs: FixedArray<Run>)?
  /// Of the wave that may take more.
  private var current = TileSchedule.Numbers()
  private var currentShares = 0

  private typealias Share = TileSchedule.Waves.Share
  private typealias Run = TileSchedule.Waves.Run

  /// - Parameter forEachRest: calls its argument for each request's heads that are to
  ///   go into waves, always the same.
  static func waves(
    _ requests: TileRequests, blocksPerWave: Int,
    of forEachRest: ((_ request: Int, _ heads: Range<Int>) -> Void) -> Void
  ) throws(MLAError) -> TileSchedule.Waves {
    var counter = WaveBuilder(requests, blocksPerWave: blocksPerWave)
    forEachRest { counter.add($0, $1) }
    counter.close()
    var builder = WaveBuilder(requests, blocksPerWave: blocksPerWave)
    let shares = try FixedArray<Share>(capacity: counter.shareCount, for: "a schedule's segments")
    let runs = try FixedArray<Run>(capacity: counter.runCount, for: "a schedule's waves")
    builder.kept = (shares, runs)
    forEachRest { builder.add($0, $1) }
    builder.close()
    return TileSchedule.Waves(
      requests, builder.kept?.shares ?? shares, builder.kept?.runs ?? runs,
      count: builder.waveCount)
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
    let segment = requests.segments[request]
    let head = segment.narrowed(to: 0..<1, splitsPerTurn: segment.splits)
    if segment.splits > 1, head.blockCount > blocksPerWave || head.partialCount > mostPartials {
      return addInTurns(request, heads)
    }
    let headsPerWave = max(1, room(for: head, beside: .init()))
    var rest = heads
    while !rest.isEmpty {
      let room = room(for: head, beside: current)
      if room < 1, currentShares > 0 {
        close()
      } else if currentShares == 0, rest.count > headsPerWave {
        // A wave each, but for the last ones, which others may join.
        let waves = (rest.count - 1) / headsPerWave
        append(
          Share(request: request, heads: rest.prefix(waves * headsPerWave), first: .init()),
          headsPerWave: headsPerWave, waves: waves)
        rest = rest.dropFirst(waves * headsPerWave)
      } else {
        let taken = rest.prefix(max(1, room))
        append(Share(request: request, heads: taken, first: current))
        current = segment.narrowed(to: taken, splitsPerTurn: segment.splits, behind: current).end
        rest = rest.dropFirst(taken.count)
      }
    }
  }

  /// For how many such heads there is room.
  private func room(for head: TileSchedule.Segment, beside wave: TileSchedule.Numbers) -> Int {
    let blocks =
      head.blockCount == 0 ? Int.max : (blocksPerWave - wave.block) / head.blockCount
    let partials =
      head.partialCount == 0 ? Int.max : (mostPartials - wave.partial) / head.partialCount
    return min(blocks, partials)
  }

  /// Waves of one segment each: as many heads as have room for a key range and for
  /// their partial results, and where not even one head has room for all of these,
  /// some of its tiles after the others, at the cost of packing the keys again.
  private mutating func addInTurns(_ request: Int, _ heads: Range<Int>) {
    close()
    let segment = requests.segments[request]
    let partials = mostPartials / Self.leastPartialsPerTile
    let mostHeads = min(
      blocksPerWave / segment.blocksPerSplit, partials / segment.tilesPerHead)
    let headCount = max(1, min(heads.count, mostHeads))
    // Ranges side by side are tasks where tiles alone are too few, and partial results.
    let wanted = SplitRule.nominalTasks / (headCount * segment.tilesPerHead)
    let splits = max(1, min(wanted, blocksPerWave / (headCount * segment.blocksPerSplit)))
    let tiles = max(
      Self.fewestTiles, Self.leastPartialsPerTile * partials / (headCount * (splits + 1)))
    let parts = (segment.tilesPerHead + tiles - 1) / tiles
    append(
      Share(request: request, heads: heads, first: .init()), headsPerWave: headCount,
      tilesPerPart: tiles, splitsPerTurn: splits,
      waves: parts * ((heads.count + headCount - 1) / headCount))
  }

  /// The sum of the turns before and one range's result.
  private static let leastPartialsPerTile = 2
  /// Partial results are worth more memory than packed keys: those of a prompt that
  /// is worked on at once need its keys packed once.
  private static let partialWaves = 4
  /// Attending to a key is little beside packing it if fewer see it.
  private static let fewestTiles = 16

  /// To the wave that may take more.
  private mutating func append(_ share: Share) {
    kept?.shares.append(share)
    shareCount += 1
    currentShares += 1
  }

  /// Waves of their own.
  private mutating func append(
    _ share: Share, headsPerWave: Int, tilesPerPart: Int = .max, splitsPerTurn: Int = .max,
    waves: Int
  ) {
    kept?.shares.append(share)
    shareCount += 1
    append(
      Run(
        firstWave: waveCount, firstShare: shareCount - 1, shareCount: 1,
        headsPerWave: headsPerWave, tilesPerPart: tilesPerPart, splitsPerTurn: splitsPerTurn),
      waves: waves)
  }

  private mutating func append(_ run: Run, waves: Int) {
    kept?.runs.append(run)
    runCount += 1
    waveCount += waves
  }

  private mutating func close() {
    if currentShares > 0 {
      append(
        Run(
          firstWave: waveCount, firstShare: shareCount - currentShares, shareCount: currentShares,
          headsPerWave: .max, tilesPerPart: .max, splitsPerTurn: .max), waves: 1)
    }
    current = .init()
    currentShares = 0
  }
}
