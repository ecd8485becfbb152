import CMLAPrefill

/// Messages to the host's log callback; dropped where there is none.
public enum Log {
  private struct Sink {
    let callback: mla_log_callback
    let context: UnsafeMutableRawPointer?
  }

  private static let sink = Guarded<Sink?>(nil)

  /// `callback` NULL drops messages. What the environment got wrong is told to
  /// every new callback: the library may have been in use before it was set.
  public static func setCallback(_ callback: mla_log_callback?, context: UnsafeMutableRawPointer?) {
    let new = callback.map { Sink(callback: $0, context: context) }
    sink.withLock { $0 = new }
    guard new != nil, let ignored = Host.current.ignoredCap else { return }
    let names = KernelFamily.allCases.map(\.name).joined(separator: ", ")
    warning("MLA_MAX_ISA = \(ignored): ignored, must be one of \(names)")
  }

  public static func debug(_ message: @autoclosure () -> String) { send(MLA_LOG_DEBUG, message) }
  public static func info(_ message: @autoclosure () -> String) { send(MLA_LOG_INFO, message) }
  public static func warning(_ message: @autoclosure () -> String) {
    send(MLA_LOG_WARNING, message)
  }

  private static func send(_ level: Int, _ message: () -> String) {
    guard let sink = sink.withLock({ $0 }) else { return }
    let text = message()
    Arithmetic.callers { sink.callback(sink.context, Int32(level), text) }
  }
}
