import CMLAPrefill
import MLACore

// Section 8 of the header: merging partial attention states.

@_cdecl("mla_merge_attn_states") @implementation
public func mla_merge_attn_states(_ args: UnsafePointer<mla_merge_args>?) -> mla_status {
  entry(.mergeAttnStates) { () throws(MLAError) in
    try MergeAttnStates.run(MergeArguments(args))
  }
}
