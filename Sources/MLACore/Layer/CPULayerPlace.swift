import MLAKernelABI

/// On the CPU: kv_b_proj packed for its kernels, which write rows on all threads.
struct CPULayerPlace: LayerPlace {
  let config: LayerConfig
  let table: KernelTable
  let weights: LayerWeights

  var fastestBytes: Int { 64 << 20 }

  func keys(_ arguments: LayerArguments) -> LatentKeys {
    LatentKeys(
      source: LatentGather(arguments: arguments, config: config, table: table),
      weights: weights, config: config, attention: table.attention(for: config.type),
      projection: table.projection(for: config.type))
  }

  func scratch(rows: Int, threads: Int) -> (workers: Int, bytes: Int) {
    let scratch = LatentScratch(
      config, table.attention(for: config.type), table.projection(for: config.type))
    return (min(threads, max(1, rows)), scratch.bytes)
  }

  func withMemory(
    _ memory: RegisteredMemory, _ arguments: LayerArguments,
    _ body: (UnsafeMutableRawPointer, CPULayerWork) throws(MLAError) -> Void
  ) throws(MLAError) {
    try MLACore.withMemory(
      of: memory.bytes, in: arguments.workspace, query: "mla_layer_workspace_size"
    ) { start throws(MLAError) in
      try body(start, CPULayerWork(keys: keys(arguments), memory: memory, start: start))
    }
  }
}

struct CPULayerWork: RegisteredWork {
  let keys: LatentKeys
  let memory: RegisteredMemory
  let start: UnsafeMutableRawPointer

  func writeRows(_ spans: some Collection<RowSpan>, rows: Int) throws(MLAError) {
    let tasks = try RowTasks(
      spans, keysPerTask: Int(keys.attention.key_block),
      numHeads: keys.config.attention.numHeads)
    let (k, v) = (memory.keys(start, rows), memory.values(start, rows))
    ParallelLoop.runTasks(tasks.count, workers: memory.scratch.workers, keys.attention) {
      task, worker in
      keys.write(tasks[task], to: k, v, scratch: memory.scratch.of(worker, start))
    }
  }

  func writeKeyless(_ state: State) { KeylessResult.write(to: state.out, lse: state.lse) }

  func convert(_ source: TensorView, to target: TensorView, times multiplier: Float) {
    ConvertTensor.run(source, to: target, times: multiplier, maxISA: maxISA)
  }

  func copy(_ lse: TensorView, to target: TensorView) {
    for head in 0..<lse.shape[0] {
      target.lse(0, head: head).update(from: lse.lse(0, head: head), count: lse.shape[1])
    }
  }

  func merge(_ part: State, into merged: State) {
    MergeAttnStates.run(MergeArguments(part, into: merged), maxISA: maxISA)
  }

  private var maxISA: Int32 { keys.config.attention.maxISA }
}
