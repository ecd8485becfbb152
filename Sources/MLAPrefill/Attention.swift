import CMLAPrefill
import MLACore

// Section 11 of the header: attention in one call.

@_cdecl("mla_attention") @implementation
public func mla_attention(_ args: UnsafePointer<mla_attention_args>?) -> mla_status {
  entry(.attention) { () throws(MLAError) in try Attention.run(args) }
}

@_cdecl("mla_attention_workspace_size") @implementation
public func mla_attention_workspace_size(
  _ args: UnsafePointer<mla_attention_args>?, _ bytes: UnsafeMutablePointer<Int64>?
) -> mla_status {
  entry { () throws(MLAError) in
    guard let bytes else { throw .null("bytes") }
    bytes.pointee = try Attention.workspaceSize(args)
  }
}
