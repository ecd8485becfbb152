/// The requests of a batch that have queries, all heads of each, longest first; equal
/// ones keep their order. How a request is cut is settled here: by itself alone.
final class TileRequests: Sendable {
  let longestFirst: FixedArray<TileSchedule.Request>
  /// Of keys.
  let numHeads: Int
  let headsPerKeyHead: Int
  let shape: TileShape
  /// Most heads to pack for at a time, and of a unit.
  let headsPerPack: Int

  init(
    _ spans: some RandomAccessCollection<RequestSpan>, numHeads: Int, headsPerKeyHead: Int = 1,
    shape: TileShape, split: SplitRule, headsPerPack: Int
  ) throws(MLAError) {
    self.numHeads = numHeads
    self.headsPerKeyHead = headsPerKeyHead
    self.shape = shape
    self.headsPerPack = headsPerPack
    longestFirst = try FixedArray(
      Self.longestFirst(spans).lazy.map { entry in
        let span = spans[entry.request]
        let tiles = (span.queryCount + shape.queryTile - 1) / shape.queryTile
        let keysPerRange = split.keysPerRange(span, tilesPerHead: tiles, shape)
        return TileSchedule.Request(
          span, headsPerKeyHead: headsPerKeyHead, blocksPerRange: keysPerRange / shape.keyBlock,
          shape)
      }, for: "a schedule's requests")
  }

  func segment(
    _ request: TileSchedule.Request, heads: Range<Int>, rangesPerTurn: Int = .max,
    at place: TileSchedule.Place = .init()
  ) -> TileSchedule.Segment {
    TileSchedule.Segment(
      request, heads: heads, rangesPerTurn: rangesPerTurn, headsPerPack: headsPerPack, at: place)
  }

  private struct Entry<Request> {
    let work: Int
    let request: Request
  }

  private static func longestFirst<Spans: RandomAccessCollection<RequestSpan>>(_ spans: Spans)
    throws(MLAError) -> FixedArray<Entry<Spans.Index>>
  {
    var order = try FixedArray(
      spans.indices.lazy.filter { spans[$0].queryCount > 0 }.map { request in
        let span = spans[request]
        let (work, overflows) = span.queryCount.multipliedReportingOverflow(by: span.keyCount)
        return Entry(work: overflows ? .max : work, request: request)
      }, for: "a schedule's order")
    order.sort { a, b in a.work != b.work ? a.work > b.work : a.request < b.request }
    return order
  }
}

extension TileSchedule {
  /// How the heads of a request are cut, all of them alike.
  public struct Request: Equatable, Sendable {
    public let span: RequestSpan
    let headsPerKeyHead: Int
    /// A head's of queries.
    let tiles: Int
    /// A head's of keys.
    let blocks: Int
    /// At least 1; the request is split where there are more.
    public let ranges: Int
    public let blocksPerRange: Int

    var tilesPerKeyHead: Int { tiles * headsPerKeyHead }

    init(_ span: RequestSpan, headsPerKeyHead: Int, blocksPerRange: Int, _ shape: TileShape) {
      self.span = span
      self.headsPerKeyHead = headsPerKeyHead
      tiles = (span.queryCount + shape.queryTile - 1) / shape.queryTile
      blocks = (span.keyCount + shape.keyBlock - 1) / shape.keyBlock
      ranges = max(1, (blocks + blocksPerRange - 1) / blocksPerRange)
      self.blocksPerRange = max(1, min(blocksPerRange, blocks))
    }
  }
}
