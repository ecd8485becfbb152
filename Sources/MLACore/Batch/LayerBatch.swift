import CMLAPrefill

/// The lengths of a batch for a layer: context in the cache, then new tokens.
struct LayerBatch: Sendable {
  let queryStartLoc: RowOffsets
  private let contexts: FixedArray<Int32>
  /// Number of each request's first key among the keys of all requests that
  /// have new tokens, and at the end how many there are.
  let keyBegins: FixedArray<Int>

  init(_ raw: mla_layer_forward_args, _ config: BackendConfig) throws(MLAError) {
    queryStartLoc = try RowOffsets(
      raw.query_start_loc, requests: raw.num_requests, countField: "num_requests",
      field: "query_start_loc")
    try BatchSize.check(
      queryStartLoc, config, requestsField: "num_requests", rowsField: "query_start_loc")
    contexts = try Self.contextLens(raw.context_lens, count: queryStartLoc.requestCount)
    var begins = try FixedArray<Int>(
      capacity: queryStartLoc.requestCount + 1, for: "keys of a batch")
    begins.append(0)
    for i in 0..<queryStartLoc.requestCount {
      let new = queryStartLoc.count(i)
      let context = contexts.isEmpty ? 0 : Int(contexts[i])
      begins.append(begins[i] + (new == 0 ? 0 : context + new))
    }
    keyBegins = begins
  }

  /// Empty where nobody has any.
  private static func contextLens(_ pointer: UnsafePointer<Int32>?, count: Int) throws(MLAError)
    -> FixedArray<Int32>
  {
    guard let pointer else { return FixedArray() }
    let lengths = try FixedArray(
      copying: UnsafeBufferPointer(start: pointer, count: count), for: "context_lens of a batch")
    if let i = lengths.firstIndex(where: { $0 < 0 }) {
      throw .invalid("context_lens[\(i)]", lengths[i], "must not be negative")
    }
    return lengths
  }

  var requests: Range<Int> { 0..<queryStartLoc.requestCount }

  func contextLen(_ request: Int) -> Int { contexts.isEmpty ? 0 : Int(contexts[request]) }

  /// Requests without new tokens have no keys to look at.
  func span(_ request: Int) -> RequestSpan {
    RequestSpan(
      queryBegin: queryStartLoc.begin(request), queryCount: queryStartLoc.count(request),
      keyBegin: keyBegins[request], keyCount: keyBegins[request + 1] - keyBegins[request])
  }

  /// Whether any request's context is looked at.
  var readsContext: Bool { requests.contains(where: readsContext) }

  /// Whether a request's context is looked at.
  func readsContext(_ request: Int) -> Bool {
    contextLen(request) > 0 && queryStartLoc.count(request) > 0
  }

  /// The request that a key belongs to.
  func request(ofKey key: Int) -> Int {
    firstNumber(in: requests) { keyBegins[$0 + 1] > key }
  }
}
