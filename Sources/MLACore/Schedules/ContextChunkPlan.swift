import CMLAPrefill

/// How the cached context of a batch is cut into chunks of bounded size, as
/// vLLM's plan_mla_context_chunks packs it.
///
/// Requests are packed in order. One that does not fit whole is split at a
/// multiple of the block size, and its chunk ends there; a request without
/// context ends a chunk too, because a chunk's requests are consecutive.
public struct ContextChunkPlan: Sendable {
  public struct Chunk: Sendable, Equatable {
    /// Requests of the batch; all have rows here.
    public var requests: Range<Int>
    /// First context row of the first request: only that one may continue from
    /// the chunk before.
    public var firstStart: Int32
    /// Context rows of the last request, which may be cut off.
    public var lastLength: Int32
    public var rows: Int32

    public var isContinuation: Bool { firstStart > 0 }
  }

  public let chunks: FixedArray<Chunk>
  public let request: ContextPlanRequest

  public init(_ request: ContextPlanRequest) throws(MLAError) {
    self.request = request
    var counter = ContextPacker(request)
    var count = 0
    while counter.next() != nil {
      guard count < maximumChunks else {
        throw .invalid(
          "args.row_budget", request.rowBudget,
          "too small for these context_lens: there would be more than \(maximumChunks) chunks")
      }
      count += 1
    }
    var chunks = try FixedArray<Chunk>(capacity: count, for: "chunks of a context plan")
    var packer = ContextPacker(request)
    while let chunk = packer.next() { chunks.append(chunk) }
    self.chunks = chunks
  }

  /// First context row of a chunk's request.
  func start(_ request: Int, in chunk: Chunk) -> Int32 {
    request == chunk.requests.lowerBound ? chunk.firstStart : 0
  }

  /// Context rows of a chunk's request.
  func length(_ request: Int, in chunk: Chunk) -> Int32 {
    request == chunk.requests.upperBound - 1
      ? chunk.lastLength : self.request.contextLens[request] - start(request, in: chunk)
  }
}

/// Beyond any batch that is worth running; keeps a tiny budget from asking for
/// more memory than there is.
private let maximumChunks = 1 << 20

/// Walks over the requests and hands out one chunk after the other.
private struct ContextPacker {
  private let request: ContextPlanRequest
  /// A chunk's offsets are int32, whatever the caller can hold.
  private let rowBudget: Int
  private let blockSize: Int
  private let maximumPiece: Int
  private var current = 0
  /// Rows of the current request that earlier chunks have taken.
  private var taken = 0

  init(_ request: ContextPlanRequest) {
    self.request = request
    rowBudget = Int(min(request.rowBudget, Int64(Int32.max)))
    blockSize = Int(request.blockSize)
    let piece = request.maximumPiece == 0 ? rowBudget : Int(request.maximumPiece)
    maximumPiece = piece / blockSize * blockSize
  }

  mutating func next() -> ContextChunkPlan.Chunk? {
    while current < request.contextLens.count, request.contextLens[current] == 0 { current += 1 }
    guard current < request.contextLens.count else { return nil }

    let first = current
    let firstStart = taken
    var end = current
    var rows = 0
    var lastLength = 0
    while current < request.contextLens.count, request.contextLens[current] > 0 {
      let remaining = Int(request.contextLens[current]) - taken
      let fits = rows + remaining <= rowBudget
      let length = fits ? remaining : splitLength(available: rowBudget - rows)
      guard length > 0 else { break }
      rows += length
      lastLength = length
      end = current + 1
      guard fits else {
        taken += length
        break
      }
      current += 1
      taken = 0
    }
    return ContextChunkPlan.Chunk(
      requests: first..<end, firstStart: Int32(firstStart), lastLength: Int32(lastLength),
      rows: Int32(rows))
  }

  /// How much of a request that does not fit goes into this chunk: whole blocks.
  private func splitLength(available: Int) -> Int {
    min(maximumPiece, available / blockSize * blockSize)
  }
}
