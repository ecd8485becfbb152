import MLAShims

/// Guarded state of one process: a forked child, which has none of its parent's threads,
/// finds it as it was at first.
final class PerProcess<State>: Sendable {
  private let initial: @Sendable () -> State
  private let known: Guarded<(process: UInt32, state: State)>

  init(_ initial: @autoclosure @escaping @Sendable () -> State) {
    self.initial = initial
    known = Guarded((0, initial()))
  }

  func withLock<Result, Failure: Error>(
    _ body: (inout State) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    let process = mla_shim_process_number()
    return try known.withLock { known throws(Failure) in
      if known.process != process { known = (process, initial()) }
      return try body(&known.state)
    }
  }
}
