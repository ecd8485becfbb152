/// Which of its request's keys a query sees: all, or those up to its own, which is the one
/// of its number or, aligned at the end, the last query's is the last key.
public enum CausalMask: Int32, Sendable {
  case none = 0
  case start = 1
  case end = 2
}

/// No mask: later than any key, and far from overflow.
let unmasked = Int.max / 2

/// One request's part of a call: its rows of q and its rows of k and v.
public struct RequestSpan: Equatable, Sendable {
  public let queryBegin: Int
  public let queryCount: Int
  public let keyBegin: Int
  /// Those behind the last one that any query sees are left out.
  public let keyCount: Int
  /// Query i sees the keys up to i + causalOffset, all counted from the request's first.
  let causalOffset: Int

  init(
    queryBegin: Int, queryCount: Int, keyBegin: Int, keyCount: Int, causalOffset: Int
  ) {
    self.queryBegin = queryBegin
    self.queryCount = queryCount
    self.keyBegin = keyBegin
    self.keyCount = max(0, min(keyCount, queryCount + causalOffset))
    self.causalOffset = causalOffset
  }

  public init(
    queryBegin: Int, queryCount: Int, keyBegin: Int, keyCount: Int, causal: CausalMask = .none
  ) {
    let causalOffset =
      switch causal {
      case .none: unmasked
      case .start: 0
      case .end: keyCount - queryCount
      }
    self.init(
      queryBegin: queryBegin, queryCount: queryCount, keyBegin: keyBegin, keyCount: keyCount,
      causalOffset: causalOffset)
  }

  /// How many keys a query sees, the first ones.
  func keysSeen(by query: Int) -> Int { max(0, min(query + causalOffset + 1, keyCount)) }

  /// Pairs of a query and a key that it sees.
  var pairs: Int {
    // Queries in between see one key more each than the one before.
    let first = max(0, min(-causalOffset, queryCount))
    let full = max(first, min(keyCount - causalOffset - 1, queryCount))
    let between = full - first
    return between * keysSeen(by: first) + between * (between - 1) / 2
      + (queryCount - full) * keyCount
  }

  /// Some of its queries and what these see.
  func part(_ queries: Range<Int>) -> RequestSpan {
    RequestSpan(
      queryBegin: queryBegin + queries.lowerBound, queryCount: queries.count, keyBegin: keyBegin,
      keyCount: keyCount, causalOffset: causalOffset + queries.lowerBound)
  }
}

/// Those of all requests.
struct RequestSpans: RandomAccessCollection, Sendable {
  let queries: RowOffsets
  let keys: RowOffsets
  let causal: CausalMask

  var startIndex: Int { 0 }
  var endIndex: Int { queries.requestCount }

  subscript(request: Int) -> RequestSpan {
    RequestSpan(
      queryBegin: queries.begin(request), queryCount: queries.count(request),
      keyBegin: keys.begin(request), keyCount: keys.count(request), causal: causal)
  }
}
