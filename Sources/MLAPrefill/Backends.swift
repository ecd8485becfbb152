import CMLAPrefill
import MLACore

// Section 7 of the header: backend objects.

@_cdecl("mla_backend_create") @implementation
public func mla_backend_create(
  _ name: UnsafePointer<CChar>?, _ config: UnsafePointer<mla_backend_config>?,
  _ backend: UnsafeMutablePointer<OpaquePointer?>?
) -> mla_status {
  entry { () throws(MLAError) in
    guard let backend else { throw .null("backend") }
    let name = try readString(name, field: "name", maximumBytes: maximumNameBytes)
    backend.pointee = try retainedHandle(Registry.shared.makeBackend(name, config))
  }
}

@_cdecl("mla_backend_clone") @implementation
public func mla_backend_clone(
  _ backend: OpaquePointer?, _ clone: UnsafeMutablePointer<OpaquePointer?>?
) -> mla_status {
  entry { () throws(MLAError) in
    guard let clone else { throw .null("clone") }
    clone.pointee = try retainedHandle(object(backend).clone())
  }
}

@_cdecl("mla_backend_destroy") @implementation
public func mla_backend_destroy(_ backend: OpaquePointer?) {
  release(backend, BackendObject.self)
}

@_cdecl("mla_backend_name") @implementation
public func mla_backend_name(_ backend: OpaquePointer?) -> UnsafePointer<CChar>? {
  (try? object(backend))?.cName ?? ("" as StaticString).cString
}

@_cdecl("mla_warm_up") @implementation
public func mla_warm_up(_ backend: OpaquePointer?) -> mla_status {
  entry { () throws(MLAError) in try object(backend).warmUp() }
}

@_cdecl("mla_prepare_metadata") @implementation
public func mla_prepare_metadata(
  _ backend: OpaquePointer?, _ metadata: UnsafePointer<mla_prefill_metadata>?
) -> mla_status {
  entry { () throws(MLAError) in try object(backend).prepareMetadata(metadata) }
}

@_cdecl("mla_run_prefill_new_tokens") @implementation
public func mla_run_prefill_new_tokens(
  _ backend: OpaquePointer?, _ args: UnsafePointer<mla_new_tokens_args>?
) -> mla_status {
  entry(.runPrefillNewTokens) { () throws(MLAError) in
    try object(backend).runPrefillNewTokens(args)
  }
}

@_cdecl("mla_run_prefill_context_chunk") @implementation
public func mla_run_prefill_context_chunk(
  _ backend: OpaquePointer?, _ args: UnsafePointer<mla_context_chunk_args>?
) -> mla_status {
  entry(.runPrefillContextChunk) { () throws(MLAError) in
    try object(backend).runPrefillContextChunk(args)
  }
}

@_cdecl("mla_supports_out") @implementation
public func mla_supports_out(
  _ backend: OpaquePointer?, _ supports: UnsafeMutablePointer<Int32>?
) -> mla_status {
  entry { () throws(MLAError) in
    guard let supports else { throw .null("supports") }
    supports.pointee = try object(backend).supportsOut() ? 1 : 0
  }
}

@_cdecl("mla_supports_quant_output") @implementation
public func mla_supports_quant_output(
  _ backend: OpaquePointer?, _ dtype: Int32, _ supports: UnsafeMutablePointer<Int32>?
) -> mla_status {
  entry { () throws(MLAError) in
    guard let supports else { throw .null("supports") }
    supports.pointee = try object(backend).supportsQuantOutput(dtype) ? 1 : 0
  }
}

@_cdecl("mla_workspace_size") @implementation
public func mla_workspace_size(
  _ backend: OpaquePointer?, _ bytes: UnsafeMutablePointer<Int64>?
) -> mla_status {
  entry { () throws(MLAError) in
    guard let bytes else { throw .null("bytes") }
    bytes.pointee = try object(backend).workspaceSize()
  }
}

private func object(_ backend: OpaquePointer?) throws(MLAError) -> BackendObject {
  try object(backend, "backend")
}
