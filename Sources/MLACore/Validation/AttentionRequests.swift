import CMLAPrefill

/// Which rows of a stateless call's tensors are whose, as its caller says it.
struct AttentionRequests {
  private let raw: mla_attention_args
  private let q: CallTensor
  private let k: CallTensor
  private let count: Int
  /// nil where no offsets say whose rows are whose.
  private let queryOffsets: RowOffsets?
  private let keyOffsets: RowOffsets?

  init(_ raw: mla_attention_args, _ q: CallTensor, _ k: CallTensor) throws(MLAError) {
    (self.raw, self.q, self.k) = (raw, q, k)
    if q.shape.count == 4 {
      count = try Self.countOfBatch(raw, q.shape[0])
      (queryOffsets, keyOffsets) = (nil, nil)
    } else {
      count = try Self.countOfRows(raw)
      queryOffsets = try Self.offsets(raw.cu_seqlens_q, count, "cu_seqlens_q", of: q)
      keyOffsets =
        if raw.cu_seqlens_k == nil {
          try Self.offsetsOfQueries(raw, queryOffsets, q, k)
        } else {
          try Self.offsets(raw.cu_seqlens_k, count, "cu_seqlens_k", of: k)
        }
    }
    try BatchSize.check(
      requests: count, numHeads: q.shape[1],
      field: q.shape.count == 4 ? "q.shape[0]" : "num_requests")
  }

  func spans(_ causal: CausalMask) throws(MLAError) -> FixedArray<RequestSpan> {
    var spans = try FixedArray<RequestSpan>(capacity: count, for: "requests of a batch")
    for request in 0..<count {
      let queries = Self.rows(request, queryOffsets, of: q)
      let keys = try chosen(from: Self.rows(request, keyOffsets, of: k), of: request)
      spans.append(
        RequestSpan(
          queryBegin: queries.lowerBound, queryCount: queries.count, keyBegin: keys.lowerBound,
          keyCount: keys.count, causal: causal))
    }
    return spans
  }

  /// Without offsets those of the batch's element, or all.
  private static func rows(_ request: Int, _ offsets: RowOffsets?, of tensor: CallTensor)
    -> Range<Int>
  {
    if let offsets {
      let begin = offsets.begin(request)
      return begin..<begin + offsets.count(request)
    }
    let count = tensor.shape[tensor.tokens]
    let begin = tensor.shape.count == 4 ? request * count : 0
    return begin..<begin + count
  }

  private func chosen(from keys: Range<Int>, of request: Int) throws(MLAError) -> Range<Int> {
    // Read once: what the caller does to its own meanwhile changes nothing.
    let begin = raw.k_begin.map { Int($0[request]) } ?? 0
    guard begin >= 0, begin <= keys.count else {
      throw .invalid(
        "k_begin[\(request)]", begin, "must be 0 to the \(keys.count) keys of the request")
    }
    let rest = keys.count - begin
    let count = raw.k_count.map { Int($0[request]) } ?? rest
    guard count >= 0, count <= rest else {
      throw .invalid(
        "k_count[\(request)]", count,
        "must be 0 to the \(rest) keys that the request has from k_begin on")
    }
    let first = keys.lowerBound + begin
    return first..<first + count
  }
}

extension AttentionRequests {
  private static func countOfBatch(_ raw: mla_attention_args, _ batch: Int) throws(MLAError)
    -> Int
  {
    guard batch <= maximumRequests else {
      throw .invalid("q.shape[0]", batch, "must be at most \(maximumRequests), a request each")
    }
    guard raw.num_requests == 0 || Int(raw.num_requests) == batch else {
      throw .invalid("num_requests", raw.num_requests, "must be 0 or q's batch, \(batch)")
    }
    for (offsets, field) in [
      (raw.cu_seqlens_q, "cu_seqlens_q"), (raw.cu_seqlens_k, "cu_seqlens_k"),
    ] {
      guard offsets == nil else {
        throw .invalid(field, "an array", "must be NULL where q has 4 dimensions")
      }
    }
    return batch
  }

  private static func countOfRows(_ raw: mla_attention_args) throws(MLAError) -> Int {
    if raw.cu_seqlens_q == nil {
      try checkRange("num_requests", raw.num_requests, 0...1)
      return 1
    }
    try checkRange("num_requests", raw.num_requests, 0...maximumRequests)
    return Int(raw.num_requests)
  }

  private static func offsets(
    _ pointer: UnsafePointer<Int32>?, _ count: Int, _ field: String, of tensor: CallTensor
  ) throws(MLAError) -> RowOffsets? {
    guard let pointer else { return nil }
    let offsets = try RowOffsets(
      pointer, requests: Int32(count), countField: "num_requests", field: field)
    try tensor.requireRows(of: offsets, field)
    return offsets
  }

  /// Those of q hold for k, where nothing says otherwise.
  private static func offsetsOfQueries(
    _ raw: mla_attention_args, _ queryOffsets: RowOffsets?, _ q: CallTensor, _ k: CallTensor
  ) throws(MLAError) -> RowOffsets? {
    guard let queryOffsets, raw.k_begin == nil, raw.k_count == nil else { return nil }
    guard k.shape[0] == q.shape[0] else {
      throw .invalid(
        "cu_seqlens_k", "NULL",
        "must be given, or k_begin or k_count, where q has \(q.shape[0]) rows and k "
          + "\(k.shape[0])")
    }
    return queryOffsets
  }
}
