/// The keys that each new token attends to, as its caller lists them: positions in the
/// token's request, -1 for none, in any order and any of them twice.
struct SelectedKeys: @unchecked Sendable {
  /// The caller's, checked, and looked at once more when they are used.
  private let indices: UnsafePointer<Int32>
  private let stride: Int
  /// Entries of a row.
  let topk: Int

  init(_ indices: UnsafePointer<Int32>, stride: Int, topk: Int) {
    (self.indices, self.stride, self.topk) = (indices, stride, topk)
  }

  /// A token's entries.
  func row(_ token: Int) -> UnsafeBufferPointer<Int32> {
    UnsafeBufferPointer(start: indices + token * stride, count: topk)
  }

  /// Those requests whose tokens all list every key that they see: nothing is left out.
  func wholeRequests(of batch: LayerBatch) throws(MLAError) -> FixedArray<Bool> {
    var isWhole = try FixedArray<Bool>(
      capacity: batch.requests.count, for: "requests of a batch")
    let window = try ScratchArena.take(
      bytes: AscendingPositions.windowBytes, for: "positions of a token")
    for request in batch.requests {
      let span = batch.span(request)
      func listsAll(_ query: Int) -> Bool {
        let limit = span.keysSeen(by: query)
        var positions = AscendingPositions(
          row(span.queryBegin + query), limit: limit, window: window.base)
        return positions.skip(limit) == limit
      }
      // The last token sees most.
      isWhole.append(
        span.queryCount > 0 && span.keysSeen(by: span.queryCount - 1) <= topk
          && (0..<span.queryCount).allSatisfy(listsAll))
    }
    return isWhole
  }
}

extension RequestSpan {
  /// The same queries, each of which sees as many keys of its own as it may select, numbered in
  /// ascending order of position.
  func ofSelected(_ topk: Int) -> RequestSpan {
    RequestSpan(
      queryBegin: queryBegin, queryCount: queryCount, keyBegin: 0, keyCount: min(topk, keyCount))
  }
}

/// The positions that a row lists, ascending and each once, whatever order they are listed
/// in: bit by bit, in windows of the request one after the other.
struct AscendingPositions {
  static let windowBytes = 1 << 14

  private let row: UnsafeBufferPointer<Int32>
  /// All others are passed over.
  private let limit: Int
  private let words: UnsafeMutablePointer<UInt64>
  /// The window's first position.
  private var begin = -positionsPerWindow
  private var word = wordsPerWindow
  /// Of the word before, those that are still to come.
  private var bits: UInt64 = 0

  /// - Parameter window: windowBytes of memory, whatever is in them.
  init(_ row: UnsafeBufferPointer<Int32>, limit: Int, window: UnsafeMutableRawPointer) {
    (self.row, self.limit) = (row, limit)
    words = window.assumingMemoryBound(to: UInt64.self)
  }

  /// Writes as many of the next ones as there are, up to a number, and returns how many.
  mutating func next(_ most: Int, to positions: UnsafeMutablePointer<Int32>) -> Int {
    var count = 0
    while count < most, findBits() {
      let base = begin + (word - 1) * 64
      while bits != 0, count < most {
        positions[count] = Int32(truncatingIfNeeded: base + bits.trailingZeroBitCount)
        bits &= bits &- 1
        count += 1
      }
    }
    return count
  }

  /// Passes over the next ones, up to a number, and returns how many.
  mutating func skip(_ most: Int) -> Int {
    var count = 0
    while count < most, findBits() {
      let here = min(bits.nonzeroBitCount, most - count)
      for _ in 0..<here { bits &= bits &- 1 }
      count += here
    }
    return count
  }

  private static let wordsPerWindow = windowBytes / 8
  private static let positionsPerWindow = wordsPerWindow * 64

  /// Whether any position is left.
  private mutating func findBits() -> Bool {
    while bits == 0 {
      if word == Self.wordsPerWindow && !openWindow() { return false }
      bits = words[word]
      word += 1
    }
    return true
  }

  private mutating func openWindow() -> Bool {
    begin += Self.positionsPerWindow
    if begin >= limit { return false }
    words.update(repeating: 0, count: Self.wordsPerWindow)
    let count = UInt(min(limit - begin, Self.positionsPerWindow))
    for position in row {
      let place = Int(position) - begin
      if UInt(bitPattern: place) < count { words[place >> 6] |= 1 << UInt64(place & 63) }
    }
    word = 0
    return true
  }
}
