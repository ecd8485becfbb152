/// One request's part of a call: its rows of q and its rows of k and v.
public struct RequestSpan: Equatable, Sendable {
  public let queryBegin: Int
  public let queryCount: Int
  public let keyBegin: Int
  public let keyCount: Int

  public init(queryBegin: Int, queryCount: Int, keyBegin: Int, keyCount: Int) {
    self.queryBegin = queryBegin
    self.queryCount = queryCount
    self.keyBegin = keyBegin
    self.keyCount = keyCount
  }
}

/// Those of all requests.
struct RequestSpans: RandomAccessCollection, Sendable {
  let queries: RowOffsets
  let keys: RowOffsets

  var startIndex: Int { 0 }
  var endIndex: Int { queries.requestCount }

  subscript(request: Int) -> RequestSpan {
    RequestSpan(
      queryBegin: queries.begin(request), queryCount: queries.count(request),
      keyBegin: keys.begin(request), keyCount: keys.count(request))
  }
}
