import CMLAPrefill
import MLACore

@_cdecl("mla_register_backend") @implementation
public func mla_register_backend(
  _ name: UnsafePointer<CChar>!, _ registration: UnsafePointer<mla_backend_registration>!
) -> mla_status {
  entry { () throws(MLAError) in
    try Registry.shared.register(memberName(name), Registration(registration))
  }
}

@_cdecl("mla_override_backend") @implementation
public func mla_override_backend(
  _ name: UnsafePointer<CChar>!, _ registration: UnsafePointer<mla_backend_registration>!
) -> mla_status {
  entry { () throws(MLAError) in
    try Registry.shared.override(memberName(name), Registration(registration))
  }
}

@_cdecl("mla_clear_override") @implementation
public func mla_clear_override(_ name: UnsafePointer<CChar>!) -> mla_status {
  entry { () throws(MLAError) in try Registry.shared.override(memberName(name), nil) }
}

@_cdecl("mla_remove_backend") @implementation
public func mla_remove_backend(_ name: UnsafePointer<CChar>!) -> mla_status {
  entry { () throws(MLAError) in try Registry.shared.remove(memberName(name)) }
}

@_cdecl("mla_backend_path") @implementation
public func mla_backend_path(
  _ name: UnsafePointer<CChar>!, _ class_path: UnsafeMutablePointer<UnsafePointer<CChar>?>!
) -> mla_status {
  entry { () throws(MLAError) in
    guard let class_path else { throw .null("class_path") }
    let path = try Registry.shared.member(memberName(name)).classPath()
    class_path.pointee = try path.map { path throws(MLAError) in
      try InternedStrings.pointer(to: path)
    }
  }
}

@_cdecl("mla_backend_is_overridden") @implementation
public func mla_backend_is_overridden(
  _ name: UnsafePointer<CChar>!, _ is_overridden: UnsafeMutablePointer<Int32>!
) -> mla_status {
  entry { () throws(MLAError) in
    guard let is_overridden else { throw .null("is_overridden") }
    is_overridden.pointee = try Registry.shared.member(memberName(name)).isOverridden ? 1 : 0
  }
}

private func memberName(_ pointer: UnsafePointer<CChar>?) throws(MLAError) -> String {
  try readString(pointer, field: "name", maximumBytes: maximumNameBytes)
}
