import MLAKernelABI

/// A batch's schedules and memory, within a bound if there is one. Each request
/// takes one of three forms; those of one form are worked on after those of the
/// other, in the same memory.
struct LayerPlan {
  struct UpProjected {
    let schedule: TileSchedule
    let memory: AttentionMemory
  }

  struct Absorbed {
    let schedule: SharedKeySchedule
    let memory: SharedKeyMemory
    let scratch: AbsorbedScratch
  }

  /// nil where no request takes the form.
  let upProjected: UpProjected?
  let absorbed: Absorbed?
  /// Absorbed, too, each token attending to keys of its own.
  let selected: Absorbed?

  var threads: Int {
    max(
      upProjected?.memory.scratch.workers ?? 0, absorbed?.memory.scratch.workers ?? 0,
      selected?.memory.scratch.workers ?? 0)
  }

  /// As a call is told of: 1 up-projected, 2 absorbed, 4 selected.
  var forms: Int32 {
    (upProjected == nil ? 0 : 1) + (absorbed == nil ? 0 : 2) + (selected == nil ? 0 : 4)
  }

  var bytes: Int {
    max(
      upProjected?.memory.bytes ?? 0, absorbed?.memory.bytes ?? 0, selected?.memory.bytes ?? 0)
  }

  init(
    _ batch: LayerBatch, _ config: LayerConfig, split: SplitRule,
    _ table: KernelTable
  ) throws(MLAError) {
    let kernel = table.attention(for: config.type)
    let projection = table.projection(for: config.type)
    let spans = try FormedSpans(batch, config, kernel)
    Verbose.explain {
      "layer,up_projected:\(spans.upProjected.count) absorbed:\(spans.absorbed.count) "
        + "selected:\(spans.selected.count) requests by \(config.algorithm)"
    }
    if spans.upProjected.isEmpty {
      upProjected = nil
    } else {
      let dims = config.attention.kernelDims
      let packScratch = LatentScratch(config, kernel, projection).bytes
      let requests = try TileRequests(
        spans.upProjected, numHeads: config.attention.numHeads, shape: kernel.shape(dims),
        split: split, headsPerPack: LatentKeys.headsPerTask)
      upProjected = try Self.fit(config) { waveBytes, threads throws(MLAError) in
        let schedule = try TileSchedule(requests, threads: threads, waveBytes: waveBytes)
        let memory = AttentionMemory(schedule, kernel, dims, packScratchBytes: packScratch)
        let plan = UpProjected(schedule: schedule, memory: memory)
        return (plan, memory.bytes, memory.partialsOffset)
      }
    }
    let shape = config.absorbedShape(kernel)
    absorbed = try Self.fit(
      spans.absorbed, shape, AbsorbedScratch(config, shape, kernel, projection), config)
    let rows = table.rows(for: config.type)
    selected = try Self.fit(
      spans.selected, config.selectedShape(rows),
      AbsorbedScratch(
        config, shape, kernel, projection, selected: SelectedScratch(config, rows)), config)
    guard bytes <= config.workspaceBound ?? .max else {
      throw .invalid(
        "config.workspace_bound", config.workspaceBound ?? 0,
        "this batch needs \(bytes) bytes: \(SplitRule.longestRange) keys of a head must fit, or "
          + "in the absorbed form what a few tokens and a thread need")
    }
  }

  /// - Parameter spans: without any there is no plan.
  private static func fit(
    _ spans: FixedArray<RequestSpan>, _ shape: SharedKeyShape, _ scratch: AbsorbedScratch,
    _ config: LayerConfig
  ) throws(MLAError) -> Absorbed? {
    if spans.isEmpty { return nil }
    return try fit(config) { waveBytes, threads throws(MLAError) in
      let schedule = try SharedKeySchedule(spans, shape: shape, waveBytes: waveBytes)
      let memory = SharedKeyMemory(schedule, scratchBytes: scratch.bytes, threads: threads)
      let plan = Absorbed(schedule: schedule, memory: memory, scratch: scratch)
      return (plan, memory.bytes, schedule.waveBytes)
    }
  }

  /// A plan within the bound, or the smallest. Smaller waves first, fewer threads
  /// only where that is not enough: neither bears on bits.
  private static func fit<Plan>(
    _ config: LayerConfig,
    _ make: (_ waveBytes: Int, _ threads: Int) throws(MLAError) -> (
      plan: Plan, bytes: Int, largestWave: Int
    )
  ) throws(MLAError) -> Plan {
    var threads = HostSettings.threads
    var waveBytes = TileSchedule.waveBytes(threads: threads)
    while true {
      let (plan, bytes, largestWave) = try make(waveBytes, threads)
      let excess = bytes - (config.workspaceBound ?? .max)
      if excess <= 0 || (waveBytes == smallestWave && threads == 1) { return plan }
      if waveBytes > smallestWave {
        // What is larger than a wave and cannot be cut has one of its own. Partial
        // results may be more than all packed keys, and shrink with them.
        // Less than an alignment is none.
        let less = max(excess, memoryAlignment)
        let wanted = largestWave > less ? largestWave - less : waveBytes / 2
        waveBytes = largestWave > waveBytes ? smallestWave : max(smallestWave, wanted)
      } else {
        threads /= 2
      }
    }
  }
}

/// One pair of request and head, or one chunk of tokens.
private let smallestWave = 1

/// A batch's requests by the form that they take; those without new tokens have
/// no work.
private struct FormedSpans {
  let upProjected: FixedArray<RequestSpan>
  let absorbed: FixedArray<RequestSpan>
  let selected: FixedArray<RequestSpan>

  init(_ batch: LayerBatch, _ config: LayerConfig, _ kernel: mla_attention_kernel)
    throws(MLAError)
  {
    let cost = FormCost.of(kernel, config.type)
    func room() throws(MLAError) -> FixedArray<RequestSpan> {
      try FixedArray(capacity: batch.requests.count, for: "requests of a batch")
    }
    var (upProjected, absorbed, selected) = (try room(), try room(), FixedArray<RequestSpan>())
    var isWhole = FixedArray<Bool>()
    if let keys = batch.selected {
      selected = try room()
      isWhole = try keys.wholeRequests(of: batch)
    }
    for request in batch.requests {
      if batch.queryStartLoc.count(request) == 0 { continue }
      if let keys = batch.selected, !isWhole[request] {
        selected.append(batch.span(request).ofSelected(keys.topk))
        continue
      }
      switch config.form(of: request, batch, cost) {
      case .upProjected: upProjected.append(batch.span(request))
      case .absorbed: absorbed.append(batch.span(request))
      }
    }
    (self.upProjected, self.absorbed, self.selected) = (upProjected, absorbed, selected)
  }
}
