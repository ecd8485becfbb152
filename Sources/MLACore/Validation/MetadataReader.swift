import CMLAPrefill

extension PrefillMetadata {
  init(_ raw: mla_prefill_metadata) throws(MLAError) {
    let queryStartLoc = try RowOffsets(
      raw.query_start_loc, requests: raw.num_requests, countField: "metadata.num_requests",
      field: "metadata.query_start_loc")
    try checkRange("metadata.num_chunks", raw.num_chunks, 0...maximumRequests)
    self.init(
      queryStartLoc: queryStartLoc,
      chunks: try ContextChunks(raw.chunks, count: Int(raw.num_chunks)))
  }
}

extension ContextChunk {
  /// - Parameter announced: the chunks of the metadata; one that is as it was then is
  ///   neither checked nor copied again.
  init(
    _ pointer: UnsafePointer<mla_context_chunk>?, name: String, announced: ContextChunks
  ) throws(MLAError) {
    let raw = try Self.read(pointer, name)
    let index = Int(raw.index)
    if announced.indices.contains(index), announced[index].isSame(as: raw) {
      self = announced[index]
      return
    }
    func offsets(_ pointer: UnsafePointer<Int32>?, _ field: String) throws(MLAError) -> RowOffsets {
      try RowOffsets(
        pointer, requests: raw.num_requests, countField: "\(name).num_requests",
        field: "\(name).\(field)")
    }
    self.init(
      index: index, queryStartLoc: try offsets(raw.query_start_loc, "query_start_loc"),
      cuSeqLens: try offsets(raw.cu_seq_lens, "cu_seq_lens"))
  }

  fileprivate static func read(_ pointer: UnsafePointer<mla_context_chunk>?, _ name: String)
    throws(MLAError) -> mla_context_chunk
  {
    let raw = try readStruct(pointer, name: name)
    try checkRange("\(name).index", raw.index, -1...maximumRequests)
    return raw
  }

  private func isSame(as raw: mla_context_chunk) -> Bool {
    queryStartLoc.isSame(as: raw.query_start_loc, requests: raw.num_requests)
      && cuSeqLens.isSame(as: raw.cu_seq_lens, requests: raw.num_requests)
  }
}

extension ContextChunks {
  /// An array of structs of the caller's: an older caller's are shorter than
  /// ours, so the first one's size says where the next one lies.
  fileprivate init(_ first: UnsafePointer<mla_context_chunk>?, count: Int) throws(MLAError) {
    guard count > 0 else {
      self.init(places: FixedArray(), offsets: FixedArray())
      return
    }
    guard let first else { throw .null("metadata.chunks") }
    var chunks = try FixedArray<mla_context_chunk>(capacity: count, for: "context chunks")
    var places = try FixedArray<Place>(capacity: count, for: "context chunks")
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
    var offsets = try FixedArray<Int32>(capacity: end, for: "offsets of context chunks")
    func copy(_ pointer: UnsafePointer<Int32>?, of chunk: Int, _ field: String) throws(MLAError) {
      guard let pointer else { throw .null("\(Self.name(chunk)).\(field)") }
      let begin = offsets.count
      for row in 0...places[chunk].requests { offsets.append(pointer[row]) }
      try RowOffsets.check(
        offsets.part(begin..<offsets.count), field: "\(Self.name(chunk)).\(field)")
    }
    for (i, chunk) in chunks.enumerated() {
      try copy(chunk.query_start_loc, of: i, "query_start_loc")
      try copy(chunk.cu_seq_lens, of: i, "cu_seq_lens")
    }
    self.init(places: places, offsets: offsets)
  }

  private static func name(_ index: Int) -> String { "metadata.chunks[\(index)]" }
}
