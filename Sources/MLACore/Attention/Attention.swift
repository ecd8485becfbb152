import CMLAPrefill

/// Attention without a backend and without a batch's metadata: a call says all there is to
/// know.
public enum Attention {
  public static func run(_ pointer: UnsafePointer<mla_attention_args>?) throws(MLAError) {
    try run(AttentionArguments(pointer))
  }

  /// Bytes of workspace that the call needs at the present number of threads.
  public static func workspaceSize(_ pointer: UnsafePointer<mla_attention_args>?)
    throws(MLAError) -> Int64
  {
    let arguments = try AttentionArguments(pointer, readsWorkspace: false)
    return Int64(try plan(arguments).bytes)
  }

  private static func plan(_ a: AttentionArguments) throws(MLAError) -> AttentionPlan {
    try AttentionPlans.plan(
      for: AttentionKey(a.requests, a.shape, mostThreads: HostSettings.threads))
  }

  private static func run(_ a: AttentionArguments) throws(MLAError) {
    let (plan, dims) = (try plan(a), a.shape.kernelDims)
    let table = KernelTables.table(cappedAt: a.maxISA)
    let kernel = table.attention(for: a.q.type)
    CallRecord.note {
      $0.note(a.q, on: .cpu, requests: a.requests.count)
      ($0.v_head_dim, $0.form) = (dims.v_head_dim, plan.forms)
    }
    CallRecord.note(.cpu(kernel), threads: plan.threads)
    let waves = try plan.byGroup.map { groups throws(MLAError) in
      try SharedKeySchedule.Waves(groups.schedule)
    }
    try withMemory(
      of: plan.bytes, in: a.workspace, query: "mla_attention_workspace_size"
    ) { start in
      if let part = plan.byHead {
        AttentionRun(
          schedule: part.schedule, kernel: kernel, table: table, dims: dims,
          scale: Float(a.scale), q: TensorRows(a.q),
          keys: TensorKeys(k: TensorRows(a.k), v: TensorRows(a.v), kernel: kernel, dims: dims),
          out: TensorRows(a.out), outMultiplier: a.outputScale?.multiplier ?? 1,
          lse: a.lse.map(TensorRows.init(lse:)), memory: part.memory,
          start: start
        ).execute()
      }
      if let part = plan.byGroup, let waves {
        GroupRun(part, a, waves: waves, kernel, table, start: start).execute()
      }
    }
  }
}
