import CMLAPrefill

/// Attention by a registered backend's own run calls, as vLLM's
/// MLACommonImpl.forward_mha makes them: of the new tokens to themselves, then to
/// one chunk of context after the other, each result merged into those before.
/// Nothing of the caller's is written before all runs have succeeded, but by the
/// backend itself where its one run does all. Results are rounded to the layer's
/// dtype, as a run gives them, and after merging to the caller's.
struct RegisteredRun<Work: RegisteredWork> {
  let plan: RegisteredPlan
  let arguments: LayerArguments
  let work: Work
  let backend: BackendObject
  let start: UnsafeMutableRawPointer

  func execute() throws(MLAError) {
    let (out, lse) = (
      arguments.out.narrowed(0, to: 0..<tokens), arguments.lse?.narrowed(1, to: 0..<tokens)
    )
    try work.writeRows(plan.newTokens, rows: tokens)
    if plan.isOneRun { return try runNewTokens(out, lse, arguments.outputScale) }
    let merged = plan.memory.merged(start)
    if arguments.batch.contextOnly {
      try work.writeKeyless(merged)
    } else {
      let part = plan.memory.part(start, tokens)
      try runNewTokens(part.out, merged.lse, nil)
      try work.convert(part.out, to: merged.out, times: 1)
    }
    for index in 0..<plan.chunkCount { try run(plan.chunk(index), into: merged) }
    try work.convert(merged.out, to: out, times: arguments.outMultiplier)
    if let lse { try work.copy(merged.lse, to: lse) }
  }

  private var tokens: Int { plan.queryStartLoc.rowCount }

  private func runNewTokens(_ out: TensorView, _ lse: TensorView?, _ scale: OutputScale?)
    throws(MLAError)
  {
    let q = arguments.q.narrowed(0, to: 0..<tokens)
    try withRunTensors(q, rows: tokens, out, lse) { tensors throws(MLAError) in
      try withUnsafePointer(to: scale?.value ?? 1) { value throws(MLAError) in
        var args = mla_new_tokens_args(
          struct_size: mla_new_tokens_args.size, reserved: 0, q: tensors,
          k: tensors + 1, v: tensors + 2, out: tensors + 3, lse: lse == nil ? nil : tensors + 4,
          output_scale: scale == nil ? nil : value, workspace: plan.memory.workspace(start),
          workspace_size: Int64(plan.memory.workspaceBytes), stream: arguments.stream)
        try backend.runPrefillNewTokens(&args)
      }
    }
  }

  private func run(_ chunk: RegisteredPlan.Chunk, into merged: Work.State) throws(MLAError) {
    try work.writeRows(plan.keys(of: chunk), rows: chunk.rows)
    let part = plan.memory.part(start, chunk.tokens.count)
    let q = arguments.q.narrowed(0, to: chunk.tokens)
    try withRunTensors(q, rows: chunk.rows, part.out, part.lse) { tensors throws(MLAError) in
      try withUnsafePointer(to: chunk.raw) { raw throws(MLAError) in
        var args = mla_context_chunk_args(
          struct_size: mla_context_chunk_args.size, reserved: 0, chunk: raw,
          q: tensors, k: tensors + 1, v: tensors + 2, out: tensors + 3, lse: tensors + 4,
          workspace: plan.memory.workspace(start),
          workspace_size: Int64(plan.memory.workspaceBytes), stream: arguments.stream,
          device_query_start_loc: nil, device_cu_seq_lens: nil)
        try backend.runPrefillContextChunk(&args)
      }
    }
    let result = plan.memory.result(start, chunk.tokens.count)
    try work.convert(part.out, to: result, times: 1)
    try work.merge(
      (result, part.lse),
      into: (
        merged.out.narrowed(0, to: chunk.tokens), merged.lse.narrowed(1, to: chunk.tokens)
      ))
  }

  /// Calls `body` with q, k, v, out and lse as C reads them.
  private func withRunTensors(
    _ q: TensorView, rows: Int, _ out: TensorView, _ lse: TensorView?,
    _ body: (UnsafePointer<mla_tensor>) throws(MLAError) -> Void
  ) throws(MLAError) {
    let (k, v) = (plan.memory.keys(start, rows), plan.memory.values(start, rows))
    let device = backend.config.device
    let views = [q, k, v, out, lse ?? out]
    let tensors = try FixedArray(
      views.map { mla_tensor($0, on: device) }, for: "tensors of a run")
    defer { withExtendedLifetime(tensors) {} }
    try body(tensors.pointer)
  }
}

extension mla_tensor {
  fileprivate init(_ view: TensorView, on device: Device) {
    self.init(
      struct_size: mla_tensor.size, dtype: view.type.rawValue,
      data: UnsafeMutableRawPointer(bitPattern: view.address),
      device_type: device.type, device_id: device.id, ndim: Int32(view.shape.count),
      reserved: 0, shape: view.shape.padded, strides: view.strides.padded)
  }
}
