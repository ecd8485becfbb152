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
      "index,\(plan.parts.blockCount) blocks of up to \(plan.tokens) tokens in \(plan.parts.count) parts, operands \(a.operandType.name)"
    }
    try withMemory(of: plan.bytes, in: a.workspace, query: "mla_index_workspace_size") { start in
      func block(_ part: IndexPart, _ worker: Int) -> IndexBlock {
        IndexBlock(
          arguments: a, table: table, kernel: kernel, layout: plan.layout,
          start: plan.scratch.of(worker, start), results: plan.results(part, worker: worker, start),
          request: part.request, rows: part.rows)
      }
      ParallelLoop.runTasks(
        plan.parts.count, workers: plan.scratch.workers, table.attention(for: a.operandType)
      ) { task, worker in
        let part = plan.parts[task]
        block(part, worker).score(part.keys)
        if part.kept == nil { block(part, worker).write() }
      }
      if plan.parts.keptCount == 0 { return }
      ParallelLoop.runTasks(plan.parts.blockCount, workers: plan.scratch.workers) { task, worker in
        var whole: IndexBlock?
        for part in plan.parts.parts(of: task) {
          whole?.take(plan.results(part, worker: worker, start))
          whole = whole ?? block(part, worker)
        }
        whole?.write()
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
