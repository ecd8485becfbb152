import CMLAPrefill
import MLACore
import Synchronization

@_cdecl("mla_get_cpu_info") @implementation
public func mla_get_cpu_info(_ info: UnsafeMutablePointer<mla_cpu_info>!) -> mla_status {
  entry { () throws(MLAError) in
    try writeStruct(info, name: "info", value: Host.current.cpuInfo)
  }
}

@_cdecl("mla_cpu_summary") @implementation
public func mla_cpu_summary() -> UnsafePointer<CChar>! {
  if let known = cpuSummary.load(ordering: .acquiring) { return known }
  // Not a lazy global, which is made under a lock: files are read for it.
  let made = Arithmetic.own { copyCString(Host.current.summary) }
  let (isFirst, first) = cpuSummary.compareExchange(
    expected: nil, desired: made, ordering: .acquiringAndReleasing)
  if isFirst { return made }
  made.deallocate()
  return first
}

private nonisolated(unsafe) let cpuSummary = Atomic<UnsafePointer<CChar>?>(nil)

@_cdecl("mla_isa_name") @implementation
public func mla_isa_name(_ isa: Int32) -> UnsafePointer<CChar>! {
  (KernelFamily(rawValue: isa)?.staticName ?? "unknown" as StaticString).cString
}

@_cdecl("mla_set_num_threads") @implementation
public func mla_set_num_threads(_ num_threads: Int32) -> mla_status {
  entry { () throws(MLAError) in try HostSettings.setThreads(num_threads) }
}

@_cdecl("mla_get_num_threads") @implementation
public func mla_get_num_threads() -> Int32 {
  Arithmetic.own { Int32(clamping: HostSettings.threads) }
}

@_cdecl("mla_set_parallel_for") @implementation
public func mla_set_parallel_for(
  _ parallel_for: mla_parallel_for!, _ host_context: UnsafeMutableRawPointer!
) -> mla_status {
  entry { () throws(MLAError) in
    HostSettings.setParallelFor(parallel_for, context: host_context)
  }
}

@_cdecl("mla_set_log_callback") @implementation
public func mla_set_log_callback(
  _ callback: mla_log_callback!, _ log_context: UnsafeMutableRawPointer!
) -> mla_status {
  entry { () throws(MLAError) in try Log.setCallback(callback, context: log_context) }
}

@_cdecl("mla_trim") @implementation
public func mla_trim(_ bytes: UnsafeMutablePointer<Int64>!) -> mla_status {
  entry { () throws(MLAError) in
    AttentionPlans.drop()
    let released = Int64(ScratchArena.releaseIdle())
    bytes?.pointee = released
  }
}

@_cdecl("mla_get_log_callback") @implementation
public func mla_get_log_callback(
  _ callback: UnsafeMutablePointer<mla_log_callback?>!,
  _ log_context: UnsafeMutablePointer<UnsafeMutableRawPointer?>!
) -> mla_status {
  entry { () throws(MLAError) in
    guard let callback else { throw .null("callback") }
    let current = Log.callback
    callback.pointee = current.callback
    if let log_context { log_context.pointee = current.context }
  }
}
