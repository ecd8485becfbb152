import CMLAPrefill
import MLACore

@_cdecl("mla_select_backend") @implementation
public func mla_select_backend(
  _ config: UnsafePointer<mla_selector_config>!,
  _ name: UnsafeMutablePointer<UnsafePointer<CChar>?>!
) -> mla_status {
  entry { () throws(MLAError) in
    guard let name else { throw .null("name") }
    let chosen = try Selector.current().select(SelectorConfig(config))
    name.pointee = InternedStrings.pointer(to: chosen)
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
    for reason in try Selector.current().invalidReasons(name, SelectorConfig(config)) {
      reason.withCString { sink(sink_context, $0) }
    }
  }
}

@_cdecl("mla_backend_list_create") @implementation
public func mla_backend_list_create(
  _ config: UnsafePointer<mla_selector_config>!, _ list: UnsafeMutablePointer<OpaquePointer?>!
) -> mla_status {
  entry { () throws(MLAError) in
    guard let list else { throw .null("list") }
    let checked: SelectorConfig? = config == nil ? nil : try SelectorConfig(config)
    let rows = BackendList(Selector.current(), checked)
    list.pointee = OpaquePointer(Unmanaged.passRetained(rows).toOpaque())
  }
}

@_cdecl("mla_backend_list_size") @implementation
public func mla_backend_list_size(_ list: OpaquePointer!) -> Int32 {
  guard let list = backendList(list) else { return 0 }
  return Int32(clamping: list.count)
}

@_cdecl("mla_backend_list_get") @implementation
public func mla_backend_list_get(
  _ list: OpaquePointer!, _ index: Int32, _ info: UnsafeMutablePointer<mla_backend_info>!
) -> mla_status {
  entry { () throws(MLAError) in
    guard let list = backendList(list) else { throw .null("list") }
    try writeStruct(info, name: "info", minimumSize: infoFirstVersionSize, value: list.info(at: index))
  }
}

@_cdecl("mla_backend_list_reason") @implementation
public func mla_backend_list_reason(
  _ list: OpaquePointer!, _ index: Int32, _ reason: Int32,
  _ text: UnsafeMutablePointer<UnsafePointer<CChar>?>!
) -> mla_status {
  entry { () throws(MLAError) in
    guard let list = backendList(list) else { throw .null("list") }
    guard let text else { throw .null("text") }
    text.pointee = try list.reason(reason, at: index)
  }
}

@_cdecl("mla_backend_list_destroy") @implementation
public func mla_backend_list_destroy(_ list: OpaquePointer!) {
  guard let list else { return }
  Unmanaged<BackendList>.fromOpaque(UnsafeRawPointer(list)).release()
}

private func backendList(_ handle: OpaquePointer?) -> BackendList? {
  handle.map { Unmanaged<BackendList>.fromOpaque(UnsafeRawPointer($0)).takeUnretainedValue() }
}

private let infoFirstVersionSize = 56
