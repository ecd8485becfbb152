import CMLAPrefill

/// One context chunk, checked and copied (vLLM: ContextChunk).
public struct ContextChunk: Equatable, Sendable {
  public let index: Int
  public let queryStartLoc: RowOffsets
  public let cuSeqLens: RowOffsets

  init(index: Int, queryStartLoc: RowOffsets, cuSeqLens: RowOffsets) {
    self.index = index
    self.queryStartLoc = queryStartLoc
    self.cuSeqLens = cuSeqLens
  }

  /// - Parameter announced: the chunks of the metadata; one that is as it was then is
  ///   neither checked nor copied again.
  public init(
    _ pointer: UnsafePointer<mla_context_chunk>?, name: String, announced: ContextChunks
  ) throws(MLAError) {
    let raw = try Self.read(pointer, name)
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

  fileprivate static func read(_ pointer: UnsafePointer<mla_context_chunk>?, _ name: String)
    throws(MLAError) -> mla_context_chunk
  {
    let raw = try readStruct(pointer, name: name, minimumSize: 32)
    try checkReserved(name, raw.reserved)
    try checkRange("\(name).index", raw.index, -1...maximumRequests)
    return raw
  }

  private func isSame(as raw: mla_context_chunk) -> Bool {
    queryStartLoc.isSame(as: raw.query_start_loc, requests: raw.num_requests)
      && cuSeqLens.isSame(as: raw.cu_seq_lens, requests: raw.num_requests)
  }

  var spans: RequestSpans { RequestSpans(queries: queryStartLoc, keys: cuSeqLens) }
}

/// The chunks that a batch announces; their offsets lie one behind the other.
public struct ContextChunks: RandomAccessCollection, Sendable {
  /// Where a chunk's begin.
  private struct Place {
    let first: Int
    let requests: Int
  }

  private var places = FixedArray<Place>()
  private var offsets = FixedArray<Int32>()

  /// An array of structs of the caller's: an older caller's are shorter than
  /// ours, so the first one's size says where the next one lies.
  init(_ first: UnsafePointer<mla_context_chunk>?, count: Int) throws(MLAError) {
    if count == 0 { return }
    guard let first else { throw .null("metadata.chunks") }
    var chunks = try FixedArray<mla_context_chunk>(capacity: count, for: "context chunks")
    places = try FixedArray(capacity: count, for: "context chunks")
    var (stride, end) = (0, 0)
    for i in 0..<count {
      let name = Self.name(i)
      let element = UnsafeRawPointer(first) + i * stride
      let chunk = try ContextChunk.read(
        element.assumingMemoryBound(to: mla_context_chunk.self), name)
      guard chunk.index == i || chunk.index == -1 else {
        throw .invalid("\(name).index", chunk.index, "must be \(i) or -1")
      }
      let size = Int(chunk.struct_size)
      guard i == 0 || size == stride else {
        throw .invalid("\(name).struct_size", size, "must be \(stride) as in metadata.chunks[0]")
      }
      stride = size
      try checkRange("\(name).num_requests", chunk.num_requests, 0...maximumRequests)
      places.append(Place(first: end, requests: Int(chunk.num_requests)))
      end += 2 * (Int(chunk.num_requests) + 1)
      chunks.append(chunk)
    }
    offsets = try FixedArray(capacity: end, for: "offsets of context chunks")
    for (i, chunk) in chunks.enumerated() {
      try copy(chunk.query_start_loc, of: i, "query_start_loc")
      try copy(chunk.cu_seq_lens, of: i, "cu_seq_lens")
    }
  }

  private mutating func copy(_ pointer: UnsafePointer<Int32>?, of chunk: Int, _ field: String)
    throws(MLAError)
  {
    guard let pointer else { throw .null("\(Self.name(chunk)).\(field)") }
    let begin = offsets.count
    for row in 0...places[chunk].requests { offsets.append(pointer[row]) }
    try RowOffsets.check(
      offsets.part(begin..<offsets.count), field: "\(Self.name(chunk)).\(field)")
  }

  private static func name(_ index: Int) -> String { "metadata.chunks[\(index)]" }

  public var startIndex: Int { 0 }
  public var endIndex: Int { places.count }

  public subscript(index: Int) -> ContextChunk {
    let place = places[index]
    let (keys, end) = (place.first + place.requests + 1, place.first + 2 * (place.requests + 1))
    return ContextChunk(
      index: index, queryStartLoc: RowOffsets(checked: offsets.part(place.first..<keys)),
      cuSeqLens: RowOffsets(checked: offsets.part(keys..<end)))
  }
}
