import CMLAPrefill
import MLAKernelABI

/// Attention without a backend and without a batch's metadata: a call says all there is to
/// know.
public enum Attention {
  public static func run(_ pointer: UnsafePointer<mla_attention_args>?) throws(MLAError) {
    let arguments = try AttentionArguments(pointer)
    switch arguments.device {
    case .cpu: try runOnCPU(arguments)
    }
  }

  /// Bytes of workspace that the call needs at the present number of threads.
  public static func workspaceSize(_ pointer: UnsafePointer<mla_attention_args>?)
    throws(MLAError) -> Int64
  {
    let arguments = try AttentionArguments(pointer, readsWorkspace: false)
    return Int64(try plan(arguments).memory.bytes)
  }

  private static func runOnCPU(_ a: AttentionArguments) throws(MLAError) {
    let (plan, dims) = (try plan(a), a.shape.kernelDims)
    try plan.memory.withStart(in: a.workspace, query: "mla_attention_workspace_size") { start in
      AttentionRun(
        schedule: plan.schedule, kernel: plan.kernel, table: KernelTables.table(cappedAt: a.maxISA),
        dims: dims, scale: Float(a.scale), q: a.q,
        keys: TensorKeys(k: a.k, v: a.v, kernel: plan.kernel, dims: dims), out: a.out,
        outMultiplier: a.outputScale?.multiplier ?? 1, lse: a.lse, memory: plan.memory,
        start: start
      ).execute()
    }
  }

  private static func plan(_ a: AttentionArguments) throws(MLAError) -> RunPlan {
    let shape = a.shape
    return try RunPlan(
      a.requests, numHeads: shape.numKeyHeads, headsPerKeyHead: shape.headsPerKeyHead,
      KernelTables.table(cappedAt: a.maxISA).attention(for: shape.type), shape.kernelDims,
      split: .byCost(numHeads: shape.numHeads), atMost: HostSettings.threads)
  }
}
