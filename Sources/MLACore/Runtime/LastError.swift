import MLAShims

/// The calling thread's last error message.
public enum LastError {
  public static func set(_ message: String) { mla_shim_set_last_error(message) }

  /// `message` may be NULL, which means "".
  public static func set(cString message: UnsafePointer<CChar>?) {
    mla_shim_set_last_error(message)
  }

  /// Runs foreign code, in the caller's arithmetic: what it says meanwhile, "" if
  /// nothing. The thread keeps the message that it had: a call that succeeds in the end
  /// changes none.
  static func said<Result>(by call: () -> Result) -> (message: String, result: Result) {
    let earlier = mla_shim_set_aside_last_error()
    defer { mla_shim_put_back_last_error(earlier) }
    let result = Arithmetic.callers(call)
    return (String(cString: cString), result)
  }

  /// Valid until the thread sets another message or ends.
  public static var cString: UnsafePointer<CChar> { mla_shim_last_error() }
}
