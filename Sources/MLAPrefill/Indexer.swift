import CMLAPrefill
import MLACore

// Section 12 of the header: the lightning indexer.

@_cdecl("mla_index_store") @implementation
public func mla_index_store(_ args: UnsafePointer<mla_index_store_args>?) -> mla_status {
  entry(.indexStore) { () throws(MLAError) in try IndexStore.run(IndexStoreArguments(args)) }
}

@_cdecl("mla_index_select") @implementation
public func mla_index_select(_ args: UnsafePointer<mla_index_select_args>?) -> mla_status {
  entry(.indexSelect) { () throws(MLAError) in try IndexSelect.run(args) }
}

@_cdecl("mla_index_workspace_size") @implementation
public func mla_index_workspace_size(
  _ args: UnsafePointer<mla_index_select_args>?, _ bytes: UnsafeMutablePointer<Int64>?
) -> mla_status {
  entry { () throws(MLAError) in
    guard let bytes else { throw .null("bytes") }
    bytes.pointee = try IndexSelect.workspaceSize(args)
  }
}
