import CMLAPrefill
import MLACore

@_cdecl("mla_plan_context_chunks") @implementation
public func mla_plan_context_chunks(
  _ args: UnsafePointer<mla_context_plan_args>!, _ plan: UnsafeMutablePointer<OpaquePointer?>!
) -> mla_status {
  entry { () throws(MLAError) in
    guard let plan else { throw .null("plan") }
    let table = try ContextPlanTable(ContextChunkPlan(ContextPlanRequest(args)))
    plan.pointee = OpaquePointer(Unmanaged.passRetained(table).toOpaque())
  }
}

@_cdecl("mla_context_plan_num_chunks") @implementation
public func mla_context_plan_num_chunks(_ plan: OpaquePointer!) -> Int32 {
  guard let plan = contextPlan(plan) else { return 0 }
  return Int32(clamping: plan.count)
}

@_cdecl("mla_context_plan_get") @implementation
public func mla_context_plan_get(
  _ plan: OpaquePointer!, _ index: Int32, _ chunk: UnsafeMutablePointer<mla_context_plan_chunk>!
) -> mla_status {
  entry { () throws(MLAError) in
    guard let plan = contextPlan(plan) else { throw .null("plan") }
    try writeStruct(
      chunk, name: "chunk", minimumSize: chunkFirstVersionSize, value: plan.chunk(at: index))
  }
}

@_cdecl("mla_context_plan_destroy") @implementation
public func mla_context_plan_destroy(_ plan: OpaquePointer!) {
  guard let plan else { return }
  Unmanaged<ContextPlanTable>.fromOpaque(UnsafeRawPointer(plan)).release()
}

private func contextPlan(_ handle: OpaquePointer?) -> ContextPlanTable? {
  handle.map { Unmanaged<ContextPlanTable>.fromOpaque(UnsafeRawPointer($0)).takeUnretainedValue() }
}

private let chunkFirstVersionSize = 64
