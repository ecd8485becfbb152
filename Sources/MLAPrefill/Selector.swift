import CMLAPrefill
import MLACore

@_cdecl("mla_select_backend") @implementation
public func mla_select_backend(
  _ config: UnsafePointer<mla_selector_config>!,
  _ name: UnsafeMutablePointer<UnsafePointer<CChar>?>!
) -> mla_status {
  entry { () throws(MLAError) in
    guard let name else { throw .null("name") }
    let chosen = try Registry.shared.selector.select(SelectorConfig(config))
    name.pointee = try InternedStrings.pointer(to: chosen)
  }
}

@_cdecl("mla_validate_configuration") @implementation
public func mla_validate_configuration(
  _ name: UnsafePointer<CChar>!, _ config: UnsafePointer<mla_selector_config>!,
  _ sink: mla_reason_sink!, _ sink_context: UnsafeMutableRawPointer!
) -> mla_status {
  entry { () throws(MLAError) in
    guard let sink else { throw .null("sink") }
    let name = try readString(name, field: "name", maximumBytes: maximumNameBytes)
    for reason in try Registry.shared.selector.invalidReasons(name, SelectorConfig(config)) {
      reason.withCString { reason in Arithmetic.callers { sink(sink_context, reason) } }
    }
  }
}

@_cdecl("mla_backend_list_create") @implementation
public func mla_backend_list_create(
  _ config: UnsafePointer<mla_selector_config>!, _ list: UnsafeMutablePointer<OpaquePointer?>!
) -> mla_status {
  entry { () throws(MLAError) in
    guard let list else { throw .null("list") }
    let checked = config == nil ? nil : try SelectorConfig(config)
    list.pointee = try retainedHandle(BackendList(Registry.shared.selector, checked))
  }
}

@_cdecl("mla_backend_list_size") @implementation
public func mla_backend_list_size(_ list: OpaquePointer!) -> Int32 {
  Int32(clamping: (try? backendList(list))?.count ?? 0)
}

@_cdecl("mla_backend_list_get") @implementation
public func mla_backend_list_get(
  _ list: OpaquePointer!, _ index: Int32, _ info: UnsafeMutablePointer<mla_backend_info>!
) -> mla_status {
  entry { () throws(MLAError) in
    let row = try backendList(list).info(at: index)
    try writeStruct(info, name: "info", value: row)
  }
}

@_cdecl("mla_backend_list_reason") @implementation
public func mla_backend_list_reason(
  _ list: OpaquePointer!, _ index: Int32, _ reason: Int32,
  _ text: UnsafeMutablePointer<UnsafePointer<CChar>?>!
) -> mla_status {
  entry { () throws(MLAError) in
    guard let text else { throw .null("text") }
    text.pointee = try backendList(list).reason(reason, at: index)
  }
}

@_cdecl("mla_backend_list_destroy") @implementation
public func mla_backend_list_destroy(_ list: OpaquePointer!) {
  release(list, BackendList.self)
}

private func backendList(_ handle: OpaquePointer?) throws(MLAError) -> BackendList {
  try object(handle, "list")
}
