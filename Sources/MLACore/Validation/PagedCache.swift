/// How many of each request's tokens in a cache are looked at.
protocol CachedTokens {
  var requests: Range<Int> { get }
  func cachedTokens(_ request: Int) -> Int
  /// What says how many, for messages.
  func cachedTokensField(_ request: Int) -> String
}

extension LayerBatch: CachedTokens {
  func cachedTokens(_ request: Int) -> Int { cachedKeys(request) }
  func cachedTokensField(_ request: Int) -> String {
    "context_lens[\(request)]" + (newTokensCached ? " and its new tokens" : "")
  }
}

/// The slots of a cache that a batch's tokens lie in, checked and copied.
struct PagedCache: Sendable {
  let slots: CacheSlots
  /// Each request's in order, of those whose tokens are looked at.
  private let blocks: FixedArray<Int32>
  private let places: FixedArray<Place>

  /// Where a request's tokens are.
  private struct Place {
    /// The first token's, from the request's first block on.
    let position: Int
    /// Number among `blocks` of the block that position 0 is in, or would be.
    let firstBlock: Int
    let tokens: Int
  }

  /// - Parameters:
  ///   - slots: of tensors that are checked already.
  ///   - starts: where each request's tokens begin in its blocks; nil: at their beginning.
  ///   - startsField: what the caller calls it, for messages.
  init(
    _ slots: CacheSlots, _ table: BlockTable, _ batch: some CachedTokens,
    starts: UnsafePointer<Int32>?, startsField: StaticString
  ) throws(MLAError) {
    self.slots = slots
    var places = try FixedArray<Place>(
      capacity: batch.requests.count, for: "block tables of a batch")
    var count = 0
    for i in batch.requests {
      let tokens = batch.cachedTokens(i)
      let position = try Self.position(
        of: i, batch, table, slots, starts: starts, startsField: startsField)
      let columns = Self.columns(position, tokens, slots)
      places.append(
        Place(position: position, firstBlock: count - columns.lowerBound, tokens: tokens))
      count += columns.count
    }
    var blocks = try FixedArray<Int32>(capacity: count, for: "block tables of a batch")
    for i in batch.requests where places[i].tokens > 0 {
      try table.read(
        Self.columns(places[i].position, places[i].tokens, slots), of: i, to: &blocks)
    }
    (self.blocks, self.places) = (blocks, places)
  }

  /// Where a request's first token is, from its first block on; 0 without tokens.
  static func position(
    of request: Int, _ batch: some CachedTokens, _ table: BlockTable, _ slots: CacheSlots,
    starts: UnsafePointer<Int32>?, startsField: StaticString
  ) throws(MLAError) -> Int {
    guard batch.cachedTokens(request) > 0 else { return 0 }
    let position = Int(starts?[request] ?? 0)
    try check(position, of: request, batch, table, slots, startsField: startsField)
    return position
  }

  /// All of a request's tokens must be within its blocks.
  ///
  /// - Parameter start: the position of its first.
  private static func check(
    _ start: Int, of request: Int, _ batch: some CachedTokens, _ table: BlockTable,
    _ slots: CacheSlots, startsField: StaticString
  ) throws(MLAError) {
    // All factors and terms are at most Int32.max.
    let capacity = table.width * slots.blockSize
    guard start >= 0, start <= capacity else {
      throw .invalid(
        "\(startsField)[\(request)]", start,
        "must be 0 to \(capacity), the tokens that \(table.capacityText(slots))")
    }
    let tokens = batch.cachedTokens(request)
    guard tokens <= capacity - start else {
      throw .invalid(
        batch.cachedTokensField(request), tokens,
        "must not be beyond the \(capacity - start) tokens that \(table.capacityText(slots))"
          + (start == 0 ? "" : " from \(startsField)[\(request)] (\(start)) on"))
    }
  }

  /// Which of a request's blocks its tokens lie in.
  private static func columns(_ position: Int, _ tokens: Int, _ slots: CacheSlots) -> Range<Int> {
    if tokens == 0 { return 0..<0 }
    let end = position + tokens
    return position / slots.blockSize..<(end + slots.blockSize - 1) / slots.blockSize
  }

  /// A token's: the number of its block among `blocks`, and where it is in that.
  private func slot(of token: Int, _ request: Int) -> (number: Int, offset: Int) {
    let place = places[request]
    let (number, offset) = (place.position + token).quotientAndRemainder(
      dividingBy: slots.blockSize)
    return (place.firstBlock + number, offset)
  }

  /// Has the rows of a token, if there is one, on their way into the cache of the CPU.
  func fetch(_ token: Int, of request: Int) {
    if token >= places[request].tokens { return }
    let (number, offset) = slot(of: token, request)
    slots.latents.fetch(block: Int(blocks[number]), offset: offset)
    slots.rope.fetch(block: Int(blocks[number]), offset: offset)
  }

  /// The first byte of a token's latent.
  func latent(_ token: Int, of request: Int) -> UnsafeRawPointer {
    let (number, offset) = slot(of: token, request)
    return UnsafeRawPointer(slots.latents.pointer(block: Int(blocks[number]), offset: offset))
  }

  /// Calls `body` for each run of a request's tokens whose rows lie at equal distances:
  /// with the first one's slot.
  ///
  /// - Parameter tokens: some of those that are looked at.
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
