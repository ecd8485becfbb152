/// One context chunk (vLLM: ContextChunk).
public struct ContextChunk: Equatable, Sendable {
  /// Among those of the batch; -1: of none of them.
  public let index: Int
  public let queryStartLoc: RowOffsets
  public let cuSeqLens: RowOffsets

  var spans: RequestSpans { RequestSpans(queries: queryStartLoc, keys: cuSeqLens, causal: .none) }
}

/// The chunks that a batch announces; their offsets lie one behind the other.
public struct ContextChunks: RandomAccessCollection, Sendable {
  /// Where a chunk's begin.
  struct Place {
    let first: Int
    let requests: Int
  }

  let places: FixedArray<Place>
  /// For each chunk query_start_loc, then cu_seq_lens.
  let offsets: FixedArray<Int32>

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
