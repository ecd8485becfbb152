import CMLAPrefill
import MLACore

@_cdecl("mla_abi_version") @implementation
public func mla_abi_version() -> UInt32 { UInt32(MLA_ABI_VERSION) }

@_cdecl("mla_version") @implementation
public func mla_version() -> UnsafePointer<CChar>! { version }

private nonisolated(unsafe) let version = copyCString(
  "\(MLA_VERSION_MAJOR).\(MLA_VERSION_MINOR).\(MLA_VERSION_PATCH)")

@_cdecl("mla_status_name") @implementation
public func mla_status_name(_ status: mla_status) -> UnsafePointer<CChar>! {
  statusName(status).cString
}

private func statusName(_ status: mla_status) -> StaticString {
  switch Int(status) {
  case MLA_OK: "MLA_OK"
  case MLA_ERROR_INVALID_ARGUMENT: "MLA_ERROR_INVALID_ARGUMENT"
  case MLA_ERROR_UNSUPPORTED_CONFIGURATION: "MLA_ERROR_UNSUPPORTED_CONFIGURATION"
  case MLA_ERROR_UNSUPPORTED_HARDWARE: "MLA_ERROR_UNSUPPORTED_HARDWARE"
  case MLA_ERROR_NOT_REGISTERED: "MLA_ERROR_NOT_REGISTERED"
  case MLA_ERROR_OUT_OF_MEMORY: "MLA_ERROR_OUT_OF_MEMORY"
  case MLA_ERROR_INTERNAL: "MLA_ERROR_INTERNAL"
  default: "unknown"
  }
}
