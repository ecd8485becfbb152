extension AbsorbedSchedule {
  /// Chunks that are worked on together. Their lists are those of the wave before.
  struct Wave {
    var chunks: FixedArray<Chunk>
    /// Neighbouring chunks whose tokens are projected together.
    var groups: FixedArray<Range<Int>>
    fileprivate(set) var tokenCount = 0
    fileprivate(set) var taskCount = 0
    /// Rows of partial results, one for each token, head and range.
    fileprivate(set) var partialRows = 0

    func task(_ index: Int) -> Task {
      let chunk = chunks[lastNumber(in: chunks.indices) { chunks[$0].firstTask <= index }]
      let range = index - chunk.firstTask
      let begin = range * chunk.keysPerRange
      return Task(
        chunk: chunk, range: range,
        keys: begin..<min(begin + chunk.keysPerRange, chunk.sharedKeys),
        isLast: range == chunk.ranges - 1)
    }
  }

  /// The waves of a schedule, one after the other.
  struct Waves {
    private let schedule: AbsorbedSchedule
    private var wave: Wave
    private var span = 0
    /// Of the span's.
    private var chunk = 0

    init(_ schedule: AbsorbedSchedule) throws(MLAError) {
      self.schedule = schedule
      wave = Wave(
        chunks: try FixedArray(capacity: schedule.mostChunks, for: "a wave's chunks"),
        groups: try FixedArray(capacity: schedule.mostChunks, for: "a wave's groups of chunks"))
    }

    /// As many chunks as there is room for.
    mutating func next() -> Wave? {
      wave.removeAll()
      var bytes = 0
      let shape = schedule.shape
      while span < schedule.spans.count {
        let count = AbsorbedSchedule.chunkCount(schedule.spans[span], shape)
        while chunk < count {
          let next = AbsorbedSchedule.chunk(chunk, of: count, schedule.spans[span], shape)
          let added = next.bytes(shape)
          if bytes > schedule.waveBytes - added || wave.chunks.count == schedule.mostChunks {
            return wave
          }
          wave.append(next, rows: next.tokens.count * shape.numHeads)
          bytes += added
          chunk += 1
        }
        span += 1
        chunk = 0
      }
      return wave.chunks.isEmpty ? nil : wave
    }
  }
}

extension AbsorbedSchedule.Wave {
  fileprivate mutating func removeAll() {
    chunks.removeAll()
    groups.removeAll()
    (tokenCount, taskCount, partialRows) = (0, 0, 0)
  }

  fileprivate mutating func append(_ chunk: AbsorbedSchedule.Chunk, rows: Int) {
    if let last = groups.last,
      tokenCount + chunk.tokens.count - chunks[last.lowerBound].firstToken
        <= AbsorbedSchedule.groupTokens
    {
      groups[groups.count - 1] = last.lowerBound..<last.upperBound + 1
    } else {
      groups.append(chunks.count..<chunks.count + 1)
    }
    var placed = chunk
    placed.firstToken = tokenCount
    placed.firstTask = taskCount
    placed.firstPartial = partialRows
    chunks.append(placed)
    tokenCount += chunk.tokens.count
    taskCount += chunk.ranges
    partialRows += chunk.ranges * rows
  }
}
