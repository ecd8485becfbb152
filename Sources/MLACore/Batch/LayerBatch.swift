/// The lengths of a batch for a layer: context in the cache, then new tokens.
struct LayerBatch: Sendable {
  let queryStartLoc: RowOffsets
  /// New tokens are queries alone, no keys.
  let contextOnly: Bool
  /// New tokens are in the cache, too, behind their context.
  let newTokensCached: Bool
  /// nil: every token attends to all it sees.
  var selected: SelectedKeys?
  /// Empty where nobody has any.
  private let contextLens: FixedArray<Int32>
  /// Number of each request's first key among the keys of all requests that
  /// have new tokens, and at the end how many there are.
  let keyBegins: FixedArray<Int>

  init(
    queryStartLoc: RowOffsets, contextLens: FixedArray<Int32>, contextOnly: Bool = false,
    newTokensCached: Bool = false
  ) throws(MLAError) {
    self.queryStartLoc = queryStartLoc
    self.contextOnly = contextOnly
    self.newTokensCached = newTokensCached
    self.contextLens = contextLens
    var begins = try FixedArray<Int>(
      capacity: queryStartLoc.requestCount + 1, for: "keys of a batch")
    begins.append(0)
    for i in 0..<queryStartLoc.requestCount {
      let new = queryStartLoc.count(i)
      let context = contextLens.isEmpty ? 0 : Int(contextLens[i])
      begins.append(begins[i] + (new == 0 ? 0 : context + (contextOnly ? 0 : new)))
    }
    keyBegins = begins
  }

  var requests: Range<Int> { 0..<queryStartLoc.requestCount }

  func contextLen(_ request: Int) -> Int { contextLens.isEmpty ? 0 : Int(contextLens[request]) }

  /// Requests without new tokens have no keys to look at.
  func span(_ request: Int) -> RequestSpan {
    RequestSpan(
      queryBegin: queryStartLoc.begin(request), queryCount: queryStartLoc.count(request),
      keyBegin: keyBegins[request], keyCount: keyBegins[request + 1] - keyBegins[request],
      causal: contextOnly ? .none : .end)
  }

  /// Whether any request's tokens in the cache are looked at.
  var readsCache: Bool { requests.contains { cachedKeys($0) > 0 } }

  /// How many of a request's keys are in the cache, the first ones, if it has new tokens to
  /// look at them.
  func cachedKeys(_ request: Int) -> Int {
    let new = queryStartLoc.count(request)
    return new == 0 ? 0 : contextLen(request) + (newTokensCached ? new : 0)
  }

  /// The request that a key belongs to.
  func request(ofKey key: Int) -> Int {
    firstNumber(in: requests) { keyBegins[$0 + 1] > key }
  }
}
