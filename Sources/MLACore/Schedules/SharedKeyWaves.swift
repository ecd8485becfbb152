extension SharedKeySchedule {
  /// Tiles that are worked on together. Their lists are those of the wave before.
  struct Wave {
    var tiles: FixedArray<Tile>
    /// Neighbouring tiles whose tokens are projected together.
    var groups: FixedArray<Range<Int>>
    /// Where a further tile would begin.
    fileprivate(set) var end = Place()

    func task(_ index: Int) -> Task {
      let tile = tiles[lastNumber(in: tiles.indices) { tiles[$0].place.task <= index }]
      let range = index - tile.place.task
      let begin = range * tile.keysPerRange
      return Task(
        tile: tile, range: range,
        keys: begin..<min(begin + tile.keysPerRange, tile.sharedKeys),
        isLast: range == tile.ranges - 1)
    }
  }

  /// The waves of a schedule, one after the other.
  struct Waves {
    private let schedule: SharedKeySchedule
    private var wave: Wave
    private var span = 0
    private var keyHead = 0
    /// Of the span's.
    private var tile = 0

    init(_ schedule: SharedKeySchedule) throws(MLAError) {
      self.schedule = schedule
      wave = Wave(
        tiles: try FixedArray(capacity: schedule.mostTiles, for: "a wave's tiles"),
        groups: try FixedArray(capacity: schedule.mostTiles, for: "a wave's groups of tiles"))
    }

    /// As many tiles as there is room for.
    mutating func next() -> Wave? {
      wave.removeAll()
      var bytes = 0
      let shape = schedule.shape
      while span < schedule.spans.count {
        let count = SharedKeySchedule.tileCount(schedule.spans[span], shape)
        // A head's tiles follow each other.
        while keyHead < shape.numKeyHeads, count > 0 {
          let next = SharedKeySchedule.tile(
            tile, of: count, schedule.spans[span], keyHead: keyHead, shape)
          let added = next.bytes(shape)
          if bytes > schedule.waveBytes - added || wave.tiles.count == schedule.mostTiles {
            return wave
          }
          wave.append(next, rows: next.tokens.count * shape.numHeads)
          bytes += added
          tile += 1
          if tile == count { (tile, keyHead) = (0, keyHead + 1) }
        }
        span += 1
        keyHead = 0
      }
      return wave.tiles.isEmpty ? nil : wave
    }
  }
}

extension SharedKeySchedule.Wave {
  fileprivate mutating func removeAll() {
    tiles.removeAll()
    groups.removeAll()
    end = .init()
  }

  fileprivate mutating func append(_ tile: SharedKeySchedule.Tile, rows: Int) {
    if let last = groups.last,
      end.token + tile.tokens.count - tiles[last.lowerBound].place.token
        <= SharedKeySchedule.groupTokens
    {
      groups[groups.count - 1] = last.lowerBound..<last.upperBound + 1
    } else {
      groups.append(tiles.count..<tiles.count + 1)
    }
    var placed = tile
    placed.place = end
    tiles.append(placed)
    end.token += tile.tokens.count
    end.task += tile.ranges
    end.partial += tile.ranges * rows
  }
}
