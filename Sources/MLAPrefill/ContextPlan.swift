import CMLAPrefill
import MLACore

@_cdecl("mla_plan_context_chunks") @implementation
public func mla_plan_context_chunks(
  _ args: UnsafePointer<mla_context_plan_args>!, _ plan: UnsafeMutablePointer<OpaquePointer?>!
) -> mla_status {
  entry { () throws(MLAError) in
    guard let plan else { throw .null("plan") }
    plan.pointee = try retainedHandle(ContextPlanTable(ContextChunkPlan(ContextPlanRequest(args))))
  }
}

@_cdecl("mla_context_plan_num_chunks") @implementation
public func mla_context_plan_num_chunks(_ plan: OpaquePointer!) -> Int32 {
  Int32(clamping: (try? contextPlan(plan))?.count ?? 0)
}

@_cdecl("mla_context_plan_get") @implementation
public func mla_context_plan_get(
  _ plan: OpaquePointer!, _ index: Int32, _ chunk: UnsafeMutablePointer<mla_context_plan_chunk>!
) -> mla_status {
  entry { () throws(MLAError) in
    let planned = try contextPlan(plan).chunk(at: index)
    try writeStruct(chunk, name: "chunk", value: planned)
  }
}

@_cdecl("mla_context_plan_destroy") @implementation
public func mla_context_plan_destroy(_ plan: OpaquePointer!) {
  release(plan, ContextPlanTable.self)
}

private func contextPlan(_ handle: OpaquePointer?) throws(MLAError) -> ContextPlanTable {
  try object(handle, "plan")
}
