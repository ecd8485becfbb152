import MLAShims

/// The calling thread's last error message.
public enum LastError {
  public static func set(_ message: String) { mla_shim_set_last_error(message) }

  /// `message` may be NULL, which means "".
  public static func set(cString message: UnsafePointer<CChar>?) {
    mla_shim_set_last_error(message)
  }

  /// Valid until the thread sets another message or ends.
  public static var cString: UnsafePointer<CChar> { mla_shim_last_error() }
}
