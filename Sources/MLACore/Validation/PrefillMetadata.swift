import CMLAPrefill

/// A batch, checked and copied (vLLM: MLACommonPrefillMetadata).
public struct PrefillMetadata: Sendable {
  public let queryStartLoc: RowOffsets
  public let chunks: [ContextChunk]

  public init(queryStartLoc: RowOffsets, chunks: [ContextChunk] = []) {
    self.queryStartLoc = queryStartLoc
    self.chunks = chunks
  }

  public init(_ pointer: UnsafePointer<mla_prefill_metadata>?) throws(MLAError) {
    let raw = try readStruct(pointer, name: "metadata", minimumSize: 32)
    try checkReserved("metadata", raw.reserved)
    queryStartLoc = try RowOffsets(
      raw.query_start_loc, requests: raw.num_requests, countField: "metadata.num_requests",
      field: "metadata.query_start_loc")
    try checkRange("metadata.num_chunks", raw.num_chunks, 0...maximumRequests)
    chunks = try Self.readChunks(raw.chunks, count: Int(raw.num_chunks))
  }

  /// An array of structs of the caller's: an older caller's are shorter than
  /// ours, so the first one's size says where the next one lies.
  private static func readChunks(_ first: UnsafePointer<mla_context_chunk>?, count: Int)
    throws(MLAError) -> [ContextChunk]
  {
    var chunks: [ContextChunk] = []
    var stride = 0
    for i in 0..<count {
      guard let first else { throw .null("metadata.chunks") }
      let name = "metadata.chunks[\(i)]"
      let element = (UnsafeRawPointer(first) + i * stride)
        .assumingMemoryBound(to: mla_context_chunk.self)
      let chunk = try ContextChunk(element, name: name)
      guard chunk.index == i || chunk.index == -1 else {
        throw .invalid("\(name).index", chunk.index, "must be \(i) or -1")
      }
      let size = Int(element.pointee.struct_size)
      guard i == 0 || size == stride else {
        throw .invalid(
          "\(name).struct_size", size, "must be \(stride) as in metadata.chunks[0]")
      }
      stride = size
      chunks.append(
        ContextChunk(index: i, queryStartLoc: chunk.queryStartLoc, cuSeqLens: chunk.cuSeqLens))
    }
    return chunks
  }
}

/// One context chunk, checked and copied (vLLM: ContextChunk).
public struct ContextChunk: Equatable, Sendable {
  public let index: Int
  public let queryStartLoc: RowOffsets
  public let cuSeqLens: RowOffsets

  public init(index: Int = -1, queryStartLoc: RowOffsets, cuSeqLens: RowOffsets) {
    self.index = index
    self.queryStartLoc = queryStartLoc
    self.cuSeqLens = cuSeqLens
  }

  /// - Parameter announced: the chunks of the metadata; one that is as it was then is
  ///   neither checked nor copied again.
  public init(
    _ pointer: UnsafePointer<mla_context_chunk>?, name: String, announced: [ContextChunk] = []
  ) throws(MLAError) {
    let raw = try readStruct(pointer, name: name, minimumSize: 32)
    try checkReserved(name, raw.reserved)
    try checkRange("\(name).index", raw.index, -1...maximumRequests)
    let index = Int(raw.index)
    if announced.indices.contains(index), announced[index].isSame(as: raw) {
      self = announced[index]
      return
    }
    self.index = index
    queryStartLoc = try RowOffsets(
      raw.query_start_loc, requests: raw.num_requests, countField: "\(name).num_requests",
      field: "\(name).query_start_loc")
    cuSeqLens = try RowOffsets(
      raw.cu_seq_lens, requests: raw.num_requests, countField: "\(name).num_requests",
      field: "\(name).cu_seq_lens")
  }

  private func isSame(as raw: mla_context_chunk) -> Bool {
    queryStartLoc.isSame(as: raw.query_start_loc, requests: raw.num_requests)
      && cuSeqLens.isSame(as: raw.cu_seq_lens, requests: raw.num_requests)
  }

  var spans: [RequestSpan] {
    (0..<queryStartLoc.requestCount).map { i in
      RequestSpan(
        queryBegin: queryStartLoc.begin(i), queryCount: queryStartLoc.count(i),
        keyBegin: cuSeqLens.begin(i), keyCount: cuSeqLens.count(i))
    }
  }
}

/// [num_requests + 1] row offsets, from 0, never falling.
public struct RowOffsets: Equatable, Sendable {
  private let offsets: [Int32]

  public var requestCount: Int { offsets.count - 1 }
  public var rowCount: Int { Int(offsets[offsets.count - 1]) }
  public func begin(_ request: Int) -> Int { Int(offsets[request]) }
  public func count(_ request: Int) -> Int { Int(offsets[request + 1] - offsets[request]) }

  /// - Parameters:
  ///   - countField: the field that `requests` came from, for messages.
  ///   - field: the field that `pointer` came from.
  public init(
    _ pointer: UnsafePointer<Int32>?, requests: Int32, countField: String, field: String
  ) throws(MLAError) {
    try checkRange(countField, requests, 0...maximumRequests)
    guard let pointer else { throw .null(field) }
    let offsets = Array(UnsafeBufferPointer(start: pointer, count: Int(requests) + 1))
    guard offsets[0] == 0 else { throw .invalid("\(field)[0]", offsets[0], "must be 0") }
    for i in 1..<max(1, offsets.count) where offsets[i] < offsets[i - 1] {
      throw .invalid(
        "\(field)[\(i)]", offsets[i], "must not be below the offset before it, \(offsets[i - 1])")
    }
    self.offsets = offsets
  }

  /// - Parameter lengths: rows of each request; together they fit into an int32.
  init(lengths: [Int]) {
    var offsets: [Int32] = [0]
    for length in lengths { offsets.append(offsets[offsets.count - 1] + Int32(length)) }
    self.offsets = offsets
  }

  func isSame(as pointer: UnsafePointer<Int32>?, requests: Int32) -> Bool {
    guard let pointer, Int(requests) == requestCount else { return false }
    return offsets.elementsEqual(UnsafeBufferPointer(start: pointer, count: offsets.count))
  }

  /// As C reads them.
  func withPointer<Result>(
    _ body: (UnsafePointer<Int32>?) throws(MLAError) -> Result
  ) throws(MLAError) -> Result {
    try offsets.withUnsafeBufferPointer { offsets throws(MLAError) in
      try body(offsets.baseAddress)
    }
  }

  /// Causal self-attention: each request's queries see its own rows.
  var selfSpans: [RequestSpan] {
    (0..<requestCount).map { i in
      RequestSpan(
        queryBegin: begin(i), queryCount: count(i), keyBegin: begin(i), keyCount: count(i))
    }
  }
}
