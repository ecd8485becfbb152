import CMLAPrefill
import MLACore

// Of section 2 of the header: what calls have done.

@_cdecl("mla_set_verbose") @implementation
public func mla_set_verbose(
  _ level: Int32, _ callback: mla_log_callback!, _ log_context: UnsafeMutableRawPointer!
) -> mla_status {
  entry { () throws(MLAError) in try Verbose.set(level, callback, context: log_context) }
}

@_cdecl("mla_stats_size") @implementation
public func mla_stats_size() -> Int32 { Int32(CallStats.count) }

@_cdecl("mla_get_stats") @implementation
public func mla_get_stats(_ index: Int32, _ stats: UnsafeMutablePointer<mla_call_stats>!)
  -> mla_status
{
  entry { () throws(MLAError) in
    try writeStruct(stats, name: "stats", value: CallStats(at: index).row)
  }
}

@_cdecl("mla_reset_stats") @implementation
public func mla_reset_stats() { CallStats.reset() }
