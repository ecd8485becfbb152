import CMLAPrefill
import MLAShims

/// A host's callback for messages, which may be replaced while it is called.
final class MessageSink: Sendable {
  /// A callback, and its calls that have not returned.
  private final class Callback: @unchecked Sendable {
    let function: mla_log_callback
    let context: UnsafeMutableRawPointer?
    private let calls = PerProcess(0)

    init(_ function: @escaping mla_log_callback, _ context: UnsafeMutableRawPointer?) {
      self.function = function
      self.context = context
    }

    var isBeingCalled: Bool { calls.withLock { $0 > 0 } }
    func begin() { calls.withLock { $0 += 1 } }
    func end() { calls.withLock { $0 -= 1 } }
  }

  private struct State {
    var current: Callback?
    /// Those before it, as long as they may have calls.
    var removed: [Callback] = []
  }

  private let state = Guarded(State())
  /// Changes when the last call of a removed callback returns.
  private let returned = FutexWord()

  /// When this returns, callbacks set before neither run nor will run, unless it is one of
  /// them that calls.
  func setCallback(_ callback: mla_log_callback?, context: UnsafeMutableRawPointer?)
    throws(MLAError)
  {
    let new = callback.map { Callback($0, context) }
    if new != nil { try Shortage.check() }
    state.withLock { state in
      if let old = state.current { state.removed.append(old) }
      state.current = new
    }
    waitForRemoved()
  }

  /// What is set.
  var callback: (callback: mla_log_callback?, context: UnsafeMutableRawPointer?) {
    state.withLock { ($0.current?.function, $0.current?.context) }
  }

  /// - Returns: whether there is a callback that has had it.
  @discardableResult
  func send(_ level: Int, _ message: () -> String) -> Bool {
    let process = mla_shim_process_number()
    guard let callback = begin() else { return false }
    defer { end(callback, process) }
    mla_shim_thread().pointee.callbacks += 1
    defer { mla_shim_thread().pointee.callbacks -= 1 }
    let text = message()
    Arithmetic.callers { callback.function(callback.context, Int32(level), text) }
    return true
  }

  private func begin() -> Callback? {
    state.withLock { state in
      state.current?.begin()
      return state.current
    }
  }

  private func end(_ callback: Callback, _ process: UInt32) {
    let isAwaited = state.withLock { state in
      // Else the callback forked, this is the child, and the child counts anew.
      if mla_shim_process_number() == process { callback.end() }
      return !callback.isBeingCalled && state.current !== callback
    }
    guard isAwaited else { return }
    returned.add(1)
    returned.wake(.max)
  }

  private func waitForRemoved() {
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
