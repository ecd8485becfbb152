import CMLAPrefill
import MLAShims

/// Messages to the host's log callback; dropped where there is none.
public enum Log {
  /// A callback, and its calls that have not returned.
  private final class Sink: @unchecked Sendable {
    let callback: mla_log_callback
    let context: UnsafeMutableRawPointer?
    private let calls = PerProcess(0)

    init(_ callback: @escaping mla_log_callback, _ context: UnsafeMutableRawPointer?) {
      self.callback = callback
      self.context = context
    }

    var isBeingCalled: Bool { calls.withLock { $0 > 0 } }
    func begin() { calls.withLock { $0 += 1 } }
    func end() { calls.withLock { $0 -= 1 } }
  }

  private struct State {
    var sink: Sink?
    /// Those before it, as long as they may have calls.
    var removed: [Sink] = []
  }

  private static let state = Guarded(State())
  /// Changes when the last call of a removed callback returns.
  private static let returned = FutexWord()

  /// `callback` NULL drops messages. When this returns, callbacks set before neither run
  /// nor will run, unless it is one of them that calls. What the environment got wrong is
  /// told to every new callback: the library may have been in use before it was set.
  public static func setCallback(
    _ callback: mla_log_callback?, context: UnsafeMutableRawPointer?
  ) throws(MLAError) {
    let new = callback.map { Sink($0, context) }
    if new != nil { try Shortage.check() }
    state.withLock { state in
      if let old = state.sink { state.removed.append(old) }
      state.sink = new
    }
    waitForRemoved()
    guard new != nil, let ignored = Host.current.ignoredCap else { return }
    let names = KernelFamily.allCases.map(\.name).joined(separator: ", ")
    warning("MLA_MAX_ISA = \(ignored): ignored, must be one of \(names)")
  }

  /// What is set.
  public static var callback: (callback: mla_log_callback?, context: UnsafeMutableRawPointer?) {
    state.withLock { ($0.sink?.callback, $0.sink?.context) }
  }

  public static func debug(_ message: @autoclosure () -> String) { send(MLA_LOG_DEBUG, message) }
  public static func info(_ message: @autoclosure () -> String) { send(MLA_LOG_INFO, message) }
  public static func warning(_ message: @autoclosure () -> String) {
    send(MLA_LOG_WARNING, message)
  }

  private static func send(_ level: Int, _ message: () -> String) {
    let process = mla_shim_process_number()
    guard let sink = begin() else { return }
    defer { end(sink, process) }
    mla_shim_thread().pointee.callbacks += 1
    defer { mla_shim_thread().pointee.callbacks -= 1 }
    let text = message()
    Arithmetic.callers { sink.callback(sink.context, Int32(level), text) }
  }

  private static func begin() -> Sink? {
    state.withLock { state in
      state.sink?.begin()
      return state.sink
    }
  }

  private static func end(_ sink: Sink, _ process: UInt32) {
    let isAwaited = state.withLock { state in
      // Else the callback forked, this is the child, and the child counts anew.
      if mla_shim_process_number() == process { sink.end() }
      return !sink.isBeingCalled && state.sink !== sink
    }
    guard isAwaited else { return }
    returned.add(1)
    returned.wake(.max)
  }

  private static func waitForRemoved() {
    // A callback would wait for its own end.
    guard mla_shim_thread().pointee.callbacks == 0 else { return }
    while true {
      let seen = returned.load()
      let isOver = state.withLock { state in
        state.removed.removeAll { !$0.isBeingCalled }
        return state.removed.isEmpty
      }
      if isOver { return }
      returned.wait(while: seen)
    }
  }
}
