import CMLAPrefill
import MLACore

// Section 10 of the header: the whole layer.

@_cdecl("mla_layer_create") @implementation
public func mla_layer_create(
  _ config: UnsafePointer<mla_layer_config>?, _ layer: UnsafeMutablePointer<OpaquePointer?>?
) -> mla_status {
  entry { () throws(MLAError) in
    guard let layer else { throw .null("layer") }
    layer.pointee = try retainedHandle(Registry.shared.makeLayer(config))
  }
}

@_cdecl("mla_layer_destroy") @implementation
public func mla_layer_destroy(_ layer: OpaquePointer?) { release(layer, MLALayer.self) }

@_cdecl("mla_layer_workspace_size") @implementation
public func mla_layer_workspace_size(
  _ layer: OpaquePointer?, _ args: UnsafePointer<mla_layer_forward_args>?,
  _ bytes: UnsafeMutablePointer<Int64>?
) -> mla_status {
  entry { () throws(MLAError) in
    guard let bytes else { throw .null("bytes") }
    bytes.pointee = try object(layer).workspaceSize(args)
  }
}

@_cdecl("mla_layer_forward") @implementation
public func mla_layer_forward(
  _ layer: OpaquePointer?, _ args: UnsafePointer<mla_layer_forward_args>?
) -> mla_status {
  entry(.layerForward) { () throws(MLAError) in try object(layer).forward(args) }
}

@_cdecl("mla_concat_and_cache_mla") @implementation
public func mla_concat_and_cache_mla(_ args: UnsafePointer<mla_concat_and_cache_args>?)
  -> mla_status
{
  entry(.concatAndCache) { () throws(MLAError) in
    try ConcatAndCache.run(ConcatAndCacheArguments(args))
  }
}

@_cdecl("mla_gather_and_maybe_dequant_cache") @implementation
public func mla_gather_and_maybe_dequant_cache(_ args: UnsafePointer<mla_gather_cache_args>?)
  -> mla_status
{
  entry(.gatherCache) { () throws(MLAError) in try GatherCache.run(GatherCacheArguments(args)) }
}

private func object(_ layer: OpaquePointer?) throws(MLAError) -> MLALayer {
  try object(layer, "layer")
}
