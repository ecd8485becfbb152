/// The requests of a batch that have queries, all heads of each, longest first; equal
/// ones keep their order. How a request is cut is settled here: by itself alone.
struct TileRequests: Sendable {
  let segments: FixedArray<TileSchedule.Segment>
  let numHeads: Int
  let isCausal: Bool
  let shape: TileShape

  /// - Parameter headsPerPack: most heads to pack for at a time, and of a unit.
  init(
    _ spans: some RandomAccessCollection<RequestSpan>, numHeads: Int, isCausal: Bool,
    shape: TileShape, split: SplitRule, headsPerPack: Int
  ) throws(MLAError) {
    self.numHeads = numHeads
    self.isCausal = isCausal
    self.shape = shape
    let places = try Self.longestFirst(spans)
    var segments = try FixedArray<TileSchedule.Segment>(
      capacity: places.count, for: "a schedule's requests")
    for place in places {
      let span = spans[spans.index(spans.startIndex, offsetBy: place.request)]
      let tiles = (span.queryCount + shape.queryTile - 1) / shape.queryTile
      let keysPerSplit = split.keysPerSplit(span, tilesPerHead: tiles, keyBlock: shape.keyBlock)
      segments.append(
        TileSchedule.Segment(
          span, heads: 0..<numHeads, blocksPerSplit: keysPerSplit / shape.keyBlock,
          headsPerPack: headsPerPack, shape))
    }
    self.segments = segments
  }

  private struct Place {
    let work: Int
    let request: Int
  }

  private static func longestFirst(_ spans: some RandomAccessCollection<RequestSpan>)
    throws(MLAError) -> FixedArray<Place>
  {
    var places = try FixedArray<Place>(
      capacity: spans.reduce(0) { $0 + ($1.queryCount > 0 ? 1 : 0) }, for: "a schedule's order")
    for (request, span) in spans.enumerated() where span.queryCount > 0 {
      let (work, overflows) = span.queryCount.multipliedReportingOverflow(by: span.keyCount)
      places.append(Place(work: overflows ? .max : work, request: request))
    }
    places.sort { a, b in a.work != b.work ? a.work > b.work : a.request < b.request }
    return places
  }
}
