import CMLAPrefill

/// How a batch goes through a registered backend: its context in chunks, within a bound of
/// memory if there is one.
struct RegisteredPlan {
  let memory: RegisteredMemory
  /// Of the requests that have new tokens; the backend sees no others.
  let queryStartLoc: RowOffsets
  /// Whether one run writes what the caller wants.
  let isOneRun: Bool

  /// A chunk as the backend gets it, and where its keys come from.
  struct Chunk {
    /// Rows of the batch's q.
    let tokens: Range<Int>
    let raw: mla_context_chunk
    let rows: Int
    fileprivate let planned: mla_context_plan_chunk
  }

  private let batch: LayerBatch
  /// Numbers of those that have new tokens.
  private let requests: FixedArray<Int>
  /// Owns what the chunks' pointers point to.
  private let table: ContextPlanTable

  /// Prepares `backend` for the plan. Smaller chunks first, fewer threads only
  /// where those are not enough.
  ///
  /// - Parameter quantizes: the caller wants fp8.
  init(
    _ batch: LayerBatch, quantizes: Bool, _ config: LayerConfig, for backend: BackendObject,
    on place: some LayerPlace
  ) throws(MLAError) {
    try Self.checkSize(batch, config)
    let rowBytes = RegisteredMemory.rowBytes(config)
    // The new tokens' keys and values need that much anyway.
    let fewestRows = max(batch.queryStartLoc.rowCount, Int(splitRows))
    var rowBudget = max(fewestRows, place.fastestBytes / rowBytes)
    var threads = HostSettings.threads
    while true {
      let plan = try RegisteredPlan(
        batch, quantizes: quantizes, config, for: backend, on: place, rowBudget: rowBudget,
        threads: threads)
      let excess = plan.memory.bytes - (config.workspaceBound ?? .max)
      if excess <= 0 {
        self = plan
        return
      }
      if plan.memory.rows > fewestRows {
        // Results may be more than keys and values, and stay: rounds must have an end.
        let fewer = max((excess + rowBytes - 1) / rowBytes, plan.memory.rows / 16)
        rowBudget = max(fewestRows, plan.memory.rows - fewer)
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
    _ batch: LayerBatch, quantizes: Bool, _ config: LayerConfig, for backend: BackendObject,
    on place: some LayerPlace, rowBudget: Int, threads: Int
  ) throws(MLAError) {
    self.batch = batch
    requests = try FixedArray(
      batch.requests.lazy.filter { batch.queryStartLoc.count($0) > 0 },
      for: "requests of a batch")
    queryStartLoc = try RowOffsets(lengths: requests.lazy.map(batch.queryStartLoc.count))
    table = try ContextPlanTable(Self.plan(requests, batch, queryStartLoc, rowBudget))
    var announced = try FixedArray<mla_context_chunk>(
      capacity: table.count, for: "context chunks")
    var mostRows = queryStartLoc.rowCount
    for index in 0..<table.count {
      let chunk = Chunk(try table.chunk(at: Int32(index)))
      announced.append(chunk.raw)
      mostRows = max(mostRows, chunk.rows)
    }
    try Self.prepare(backend, queryStartLoc, announced)
    let writesFloat8 = try backend.supportsQuantOutput(ElementType.float8E4M3.rawValue)
    isOneRun = table.count == 0 && !batch.contextOnly && (!quantizes || writesFloat8)
    let scratch = place.scratch(rows: mostRows, threads: threads)
    memory = RegisteredMemory(
      config, rows: mostRows, tokens: queryStartLoc.rowCount, merges: !isOneRun,
      workspaceBytes: try Self.workspaceBytes(backend), workers: scratch.workers,
      scratchBytes: scratch.bytes)
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
    _ requests: FixedArray<Int>, _ batch: LayerBatch, _ queryStartLoc: RowOffsets,
    _ rowBudget: Int
  ) throws(MLAError) -> ContextChunkPlan {
    let contextLens = try FixedArray(
      requests.lazy.map { Int32(batch.contextLen($0)) }, for: "context_lens of a batch")
    do {
      return try ContextChunkPlan(
        ContextPlanRequest(
          contextLens: contextLens, queryStartLoc: queryStartLoc, rowBudget: Int64(rowBudget),
          blockSize: splitRows))
    } catch where error.status == MLA_ERROR_INVALID_ARGUMENT {
      throw .invalid(
        "context_lens", "\(contextLens.reduce(0) { $0 + Int($1) }) tokens",
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
    _ backend: BackendObject, _ queryStartLoc: RowOffsets,
    _ announced: FixedArray<mla_context_chunk>
  ) throws(MLAError) {
    var metadata = mla_prefill_metadata(
      struct_size: mla_prefill_metadata.size,
      num_requests: Int32(queryStartLoc.requestCount), query_start_loc: queryStartLoc.pointer,
      chunks: announced.isEmpty ? nil : announced.pointer, num_chunks: Int32(announced.count),
      reserved: 0, device_query_start_loc: nil)
    defer { withExtendedLifetime((queryStartLoc, announced)) {} }
    try backend.prepareMetadata(&metadata)
  }
}

extension RegisteredPlan {
  var chunkCount: Int { table.count }

  func chunk(_ index: Int) throws(MLAError) -> Chunk { Chunk(try table.chunk(at: Int32(index))) }

  var newTokens: some Collection<RowSpan> {
    requests.lazy.map { request in
      let first = batch.keyBegins[request] + batch.contextLen(request)
      return RowSpan(
        keys: first..<batch.keyBegins[request + 1], row: batch.queryStartLoc.begin(request))
    }
  }

  /// Where a chunk's keys come from.
  func keys(of chunk: Chunk) -> some Collection<RowSpan> {
    let planned = chunk.planned
    return (0..<Int(chunk.raw.num_requests)).lazy.map { i in
      let request = requests[Int(planned.request_begin) + i]
      let first = batch.keyBegins[request] + Int(planned.starts[i])
      return RowSpan(
        keys: first..<first + Int(planned.seq_lens[i]), row: Int(planned.cu_seq_lens[i]))
    }
  }
}

extension RegisteredPlan.Chunk {
  fileprivate init(_ chunk: mla_context_plan_chunk) {
    let count = chunk.request_end - chunk.request_begin
    tokens = Int(chunk.token_begin)..<Int(chunk.token_end)
    raw = mla_context_chunk(
      struct_size: mla_context_chunk.size, index: chunk.index,
      num_requests: count, reserved: 0, query_start_loc: chunk.query_start_loc,
      cu_seq_lens: chunk.cu_seq_lens)
    rows = Int(chunk.cu_seq_lens[Int(count)])
    planned = chunk
  }
}

/// Contexts are split at multiples of that many tokens, and no chunk need be
/// smaller.
private let splitRows: Int32 = 64
