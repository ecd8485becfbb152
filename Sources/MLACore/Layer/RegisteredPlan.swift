import CMLAPrefill
import MLAKernelABI

/// How a batch goes through a registered backend: its context in chunks, within a
/// bound of memory if there is one.
struct RegisteredPlan {
  let memory: RegisteredMemory
  let newTokens: [RowSpan]
  let chunks: [Chunk]
  /// Of the requests that have new tokens; the backend sees no others.
  let queryStartLoc: RowOffsets
  /// Whether one run writes what the caller wants.
  let isOneRun: Bool

  /// A chunk as the backend gets it, and where its keys come from.
  struct Chunk {
    /// Rows of the batch's q.
    let tokens: Range<Int>
    let raw: mla_context_chunk
    let keys: [RowSpan]
    let rows: Int
  }

  /// Owns what the chunks' pointers point to.
  private let table: ContextPlanTable

  /// Prepares `backend` for the plan. Smaller chunks first, fewer threads only
  /// where those are not enough.
  ///
  /// - Parameter quantizes: the caller wants fp8.
  init(
    _ batch: LayerBatch, quantizes: Bool, _ config: LayerConfig,
    _ kernels: UnsafePointer<mla_kernel_table>, for backend: BackendObject
  ) throws(MLAError) {
    try Self.checkSize(batch, config)
    let rowBytes = RegisteredMemory.rowBytes(config)
    // The new tokens' keys and values need that much anyway.
    let fewestRows = max(batch.queryStartLoc.rowCount, splitRows)
    var rowBudget = max(fewestRows, fastestBytes / rowBytes)
    var threads = HostSettings.threads
    while true {
      let plan = try RegisteredPlan(
        batch, quantizes: quantizes, config, kernels, for: backend, rowBudget: rowBudget,
        threads: threads)
      let excess = plan.memory.bytes - (config.workspaceBound ?? .max)
      if excess <= 0 {
        self = plan
        return
      }
      if plan.memory.rows > fewestRows {
        rowBudget = max(fewestRows, plan.memory.rows - (excess + rowBytes - 1) / rowBytes)
      } else if threads > 1 {
        threads /= 2
      } else {
        throw .invalid(
          "config.workspace_bound", config.workspaceBound ?? 0,
          "this batch needs \(plan.memory.bytes) bytes: keys and values of the new tokens must fit "
            + "where a registered backend is used")
      }
    }
  }

  private init(
    _ batch: LayerBatch, quantizes: Bool, _ config: LayerConfig,
    _ kernels: UnsafePointer<mla_kernel_table>, for backend: BackendObject, rowBudget: Int,
    threads: Int
  ) throws(MLAError) {
    let requests = batch.contextLens.indices.filter { batch.queryStartLoc.count($0) > 0 }
    queryStartLoc = RowOffsets(lengths: requests.map(batch.queryStartLoc.count))
    newTokens = requests.map { i in
      let first = batch.keyBegins[i] + batch.contextLens[i]
      return RowSpan(keys: first..<batch.keyBegins[i + 1], row: batch.queryStartLoc.begin(i))
    }
    table = ContextPlanTable(
      try Self.plan(requests.map { batch.contextLens[$0] }, queryStartLoc, rowBudget))
    var chunks: [Chunk] = []
    for index in 0..<table.count {
      chunks.append(Chunk(try table.chunk(at: Int32(index)), of: requests, batch))
    }
    self.chunks = chunks
    try Self.prepare(backend, queryStartLoc, chunks)
    let writesFloat8 = try backend.supportsQuantOutput(ElementType.float8E4M3.rawValue)
    isOneRun = chunks.isEmpty && (!quantizes || writesFloat8)
    let rows = max(queryStartLoc.rowCount, chunks.map(\.rows).max() ?? 0)
    memory = RegisteredMemory(
      config, rows: rows, tokens: queryStartLoc.rowCount, merges: !isOneRun,
      workspaceBytes: try Self.workspaceBytes(backend), workers: min(threads, max(1, rows)),
      scratchBytes: LatentScratch(
        config, kernels.pointee.kernel(for: config.type),
        kernels.pointee.projection(for: config.type)
      ).bytes)
  }

  /// Sizes of what this batch needs at least must not overflow.
  private static func checkSize(_ batch: LayerBatch, _ config: LayerConfig) throws(MLAError) {
    let (bytes, overflows) = RegisteredMemory.tokenBytes(config).multipliedReportingOverflow(
      by: batch.queryStartLoc.rowCount)
    guard !overflows, bytes < Int.max / 2 else {
      throw .outOfMemory("keys and values of the new tokens", bytes: .max)
    }
  }

  private static func plan(
    _ contextLens: [Int], _ queryStartLoc: RowOffsets, _ rowBudget: Int
  ) throws(MLAError) -> ContextChunkPlan {
    do {
      return try ContextChunkPlan(
        ContextPlanRequest(
          contextLens: contextLens.map { Int32($0) }, queryStartLoc: queryStartLoc,
          rowBudget: rowBudget, blockSize: splitRows))
    } catch {
      throw .invalid(
        "context_lens", "\(contextLens.reduce(0, +)) tokens",
        "must fit into 2^20 chunks of \(rowBudget)")
    }
  }

  private static func workspaceBytes(_ backend: BackendObject) throws(MLAError) -> Int {
    let bytes = Int(try backend.workspaceSize())
    guard bytes < Int.max / 4 else {
      throw .outOfMemory("workspace of backend \(backend.name)", bytes: bytes)
    }
    return bytes
  }

  private static func prepare(
    _ backend: BackendObject, _ queryStartLoc: RowOffsets, _ chunks: [Chunk]
  ) throws(MLAError) {
    let announced = chunks.map(\.raw)
    try queryStartLoc.withPointer { offsets throws(MLAError) in
      try announced.withUnsafeBufferPointer { announced throws(MLAError) in
        var metadata = mla_prefill_metadata(
          struct_size: UInt32(MemoryLayout<mla_prefill_metadata>.size),
          num_requests: Int32(queryStartLoc.requestCount), query_start_loc: offsets,
          chunks: announced.baseAddress, num_chunks: Int32(announced.count), reserved: 0)
        try backend.prepareMetadata(&metadata)
      }
    }
  }
}

extension RegisteredPlan.Chunk {
  /// - Parameter requests: numbers of the plan's requests in the batch.
  fileprivate init(
    _ chunk: mla_context_plan_chunk, of requests: [Int], _ batch: LayerBatch
  ) {
    let count = Int(chunk.request_end - chunk.request_begin)
    tokens = Int(chunk.token_begin)..<Int(chunk.token_end)
    raw = mla_context_chunk(
      struct_size: UInt32(MemoryLayout<mla_context_chunk>.size), index: chunk.index,
      num_requests: Int32(count), reserved: 0, query_start_loc: chunk.query_start_loc,
      cu_seq_lens: chunk.cu_seq_lens)
    rows = Int(chunk.cu_seq_lens[count])
    keys = (0..<count).map { i in
      let request = requests[Int(chunk.request_begin) + i]
      let first = batch.keyBegins[request] + Int(chunk.starts[i])
      return RowSpan(
        keys: first..<first + Int(chunk.seq_lens[i]), row: Int(chunk.cu_seq_lens[i]))
    }
  }
}

/// Contexts are split at multiples of that many tokens, and no chunk need be
/// smaller.
private let splitRows = 64

/// Keys and values of a chunk, enough for its run to outweigh merging.
private let fastestBytes = 64 << 20
