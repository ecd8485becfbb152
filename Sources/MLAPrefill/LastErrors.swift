import CMLAPrefill
import MLACore

@_cdecl("mla_last_error_message") @implementation
public func mla_last_error_message() -> UnsafePointer<CChar>! { LastError.cString }

@_cdecl("mla_set_last_error_message") @implementation
public func mla_set_last_error_message(_ message: UnsafePointer<CChar>!) {
  LastError.set(cString: message)
}
