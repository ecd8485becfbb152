import CMLAPrefill

/// Messages to the host's log callback; dropped where there is none.
public enum Log {
  private static let sink = MessageSink()

  /// `callback` NULL drops messages. What the environment got wrong is told to every new
  /// callback: the library may have been in use before it was set.
  public static func setCallback(
    _ callback: mla_log_callback?, context: UnsafeMutableRawPointer?
  ) throws(MLAError) {
    try sink.setCallback(callback, context: context)
    guard callback != nil, let ignored = Host.current.ignoredCap else { return }
    let names = KernelFamily.allCases.map(\.name).joined(separator: ", ")
    warning("MLA_MAX_ISA = \(ignored): ignored, must be one of \(names)")
  }

  /// What is set.
  public static var callback: (callback: mla_log_callback?, context: UnsafeMutableRawPointer?) {
    sink.callback
  }

  public static func debug(_ message: @autoclosure () -> String) {
    sink.send(MLA_LOG_DEBUG, message)
  }

  public static func info(_ message: @autoclosure () -> String) {
    sink.send(MLA_LOG_INFO, message)
  }

  public static func warning(_ message: @autoclosure () -> String) {
    sink.send(MLA_LOG_WARNING, message)
  }
}
