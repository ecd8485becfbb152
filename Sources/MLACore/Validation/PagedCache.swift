import CMLAPrefill

/// The slots of a cache that a batch's contexts lie in, checked and copied.
struct PagedCache: Sendable {
  let slots: CacheSlots
  /// Each request's in order, of those whose context is looked at.
  private let blocks: FixedArray<Int32>
  private let places: FixedArray<Place>

  /// Where a request's context is.
  private struct Place {
    /// The first token's, from the request's first block on.
    let position: Int
    /// Number among `blocks` of the block that position 0 is in, or would be.
    let firstBlock: Int
  }

  /// - Parameter slots: of tensors that are checked already.
  init(_ slots: CacheSlots, _ raw: mla_layer_forward_args, _ batch: LayerBatch) throws(MLAError) {
    self.slots = slots
    let table = try BlockTable(raw, of: slots)
    var places = try FixedArray<Place>(
      capacity: batch.requests.count, for: "block tables of a batch")
    var count = 0
    for i in batch.requests {
      let position =
        batch.readsContext(i) ? try Self.begin(of: i, raw.context_starts, batch, table, slots) : 0
      let columns = Self.columns(position, batch, i, slots)
      places.append(Place(position: position, firstBlock: count - columns.lowerBound))
      count += columns.count
    }
    var blocks = try FixedArray<Int32>(capacity: count, for: "block tables of a batch")
    for i in batch.requests where batch.readsContext(i) {
      try table.read(
        Self.columns(places[i].position, batch, i, slots), of: i, to: &blocks)
    }
    (self.blocks, self.places) = (blocks, places)
  }

  /// The position of a request's first token. All of its tokens are within its blocks.
  private static func begin(
    of request: Int, _ starts: UnsafePointer<Int32>?, _ batch: LayerBatch, _ table: BlockTable,
    _ slots: CacheSlots
  ) throws(MLAError) -> Int {
    let start = Int(starts?[request] ?? 0)
    // All factors and terms are at most Int32.max.
    let capacity = table.width * slots.blockSize
    guard start >= 0, start <= capacity else {
      throw .invalid(
        "context_starts[\(request)]", start,
        "must be 0 to \(capacity), the tokens that \(table.capacityText(slots))")
    }
    let context = batch.contextLen(request)
    guard context <= capacity - start else {
      throw .invalid(
        "context_lens[\(request)]", context,
        "must not be beyond the \(capacity - start) tokens that \(table.capacityText(slots))"
          + (start == 0 ? "" : " from context_starts[\(request)] (\(start)) on"))
    }
    return start
  }

  /// Which of a request's blocks its context lies in.
  private static func columns(
    _ position: Int, _ batch: LayerBatch, _ request: Int, _ slots: CacheSlots
  ) -> Range<Int> {
    guard batch.readsContext(request) else { return 0..<0 }
    let end = position + batch.contextLen(request)
    return position / slots.blockSize..<(end + slots.blockSize - 1) / slots.blockSize
  }

  /// A token's: the number of its block among `blocks`, and where it is in that.
  private func slot(of token: Int, _ request: Int) -> (number: Int, offset: Int) {
    let place = places[request]
    let (number, offset) = (place.position + token).quotientAndRemainder(
      dividingBy: slots.blockSize)
    return (place.firstBlock + number, offset)
  }

  /// Has the rows of a token of the context on their way into the cache of the CPU.
  func fetch(_ token: Int, of request: Int) {
    let (number, offset) = slot(of: token, request)
    slots.latents.fetch(block: Int(blocks[number]), offset: offset)
    slots.rope.fetch(block: Int(blocks[number]), offset: offset)
  }

  /// Calls `body` for each run of a request's tokens whose rows lie at equal distances:
  /// with the first one's slot.
  ///
  /// - Parameter tokens: some of its context.
  func forEachRun(
    _ tokens: Range<Int>, of request: Int,
    _ body: (_ block: Int, _ offset: Int, _ tokens: Range<Int>) -> Void
  ) {
    var token = tokens.lowerBound
    while token < tokens.upperBound {
      let (first, offset) = slot(of: token, request)
      var (last, end) = (first, token + slots.blockSize - offset)
      while slots.blocksFollow, end < tokens.upperBound, blocks[last + 1] == blocks[last] + 1 {
        (last, end) = (last + 1, end + slots.blockSize)
      }
      end = min(end, tokens.upperBound)
      body(Int(blocks[first]), offset, token..<end)
      token = end
    }
  }
}
