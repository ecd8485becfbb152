import CMLAPrefill

/// The lengths of a batch for a layer: context in the cache, then new tokens.
struct LayerBatch: Sendable {
  let queryStartLoc: RowOffsets
  let contextLens: [Int]
  /// Number of each request's first key among the keys of all requests that
  /// have new tokens, and at the end how many there are.
  let keyBegins: [Int]

  init(_ raw: mla_layer_forward_args, _ config: BackendConfig) throws(MLAError) {
    queryStartLoc = try RowOffsets(
      raw.query_start_loc, requests: raw.num_requests, countField: "num_requests",
      field: "query_start_loc")
    try BatchSize.check(
      queryStartLoc, config, requestsField: "num_requests", rowsField: "query_start_loc")
    contextLens = try Self.contextLens(raw.context_lens, count: queryStartLoc.requestCount)
    var begins = [0]
    for (i, context) in contextLens.enumerated() {
      let new = queryStartLoc.count(i)
      begins.append(begins[i] + (new == 0 ? 0 : context + new))
    }
    keyBegins = begins
  }

  private static func contextLens(_ pointer: UnsafePointer<Int32>?, count: Int) throws(MLAError)
    -> [Int]
  {
    guard let pointer else { return [Int](repeating: 0, count: count) }
    let lengths = UnsafeBufferPointer(start: pointer, count: count).map(Int.init)
    if let i = lengths.firstIndex(where: { $0 < 0 }) {
      throw .invalid("context_lens[\(i)]", lengths[i], "must not be negative")
    }
    return lengths
  }

  /// Requests without new tokens have no keys to look at.
  var spans: [RequestSpan] {
    contextLens.indices.map { i in
      RequestSpan(
        queryBegin: queryStartLoc.begin(i), queryCount: queryStartLoc.count(i),
        keyBegin: keyBegins[i], keyCount: keyBegins[i + 1] - keyBegins[i])
    }
  }

  /// Whether a request's context is looked at.
  func readsContext(_ request: Int) -> Bool {
    contextLens[request] > 0 && queryStartLoc.count(request) > 0
  }

  /// The request that a key belongs to.
  func request(ofKey key: Int) -> Int {
    firstNumber(in: contextLens.indices) { keyBegins[$0 + 1] > key }
  }
}
