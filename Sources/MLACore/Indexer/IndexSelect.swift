import CMLAPrefill
import MLAKernelABI

/// Selects the keys that each token attends to (vLLM: sparse_attn_indexer).
public enum IndexSelect {
  public static func run(_ pointer: UnsafePointer<mla_index_select_args>?) throws(MLAError) {
    let a = try IndexSelectArguments(pointer)
    let table = KernelTables.table(cappedAt: a.maxISA)
    let kernel = table.index(for: a.operandType)
    CallRecord.note { $0.note(a.q, on: .cpu, requests: a.batch.requests.count) }
    let plan = try IndexPlan(a, kernel)
    CallRecord.note(CallKernel(number: kernel.family), threads: plan.scratch.workers)
    Verbose.explain {
      "index,\(plan.blockCount) blocks of up to \(plan.tokens) tokens, operands \(a.operandType.name)"
    }
    try withMemory(of: plan.bytes, in: a.workspace, query: "mla_index_workspace_size") { start in
      ParallelLoop.runTasks(plan.blockCount, workers: plan.scratch.workers) { task, worker in
        let (request, rows) = plan.block(task, of: a.batch)
        IndexBlock(
          arguments: a, table: table, kernel: kernel, layout: plan.layout,
          start: plan.scratch.of(worker, start), request: request, rows: rows
        ).select()
      }
    }
  }

  /// Bytes of workspace that the call needs at the present number of threads.
  public static func workspaceSize(_ pointer: UnsafePointer<mla_index_select_args>?)
    throws(MLAError) -> Int64
  {
    let a = try IndexSelectArguments(pointer, readsWorkspace: false)
    let kernel = KernelTables.table(cappedAt: a.maxISA).index(for: a.operandType)
    return Int64(try IndexPlan(a, kernel).bytes)
  }
}
