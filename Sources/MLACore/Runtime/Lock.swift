import MLAShims

/// A lock that is safe across fork(): the child finds every lock free and what
/// it protects whole, whatever the parent's other threads were doing.
///
/// Keep what runs under it short, and never call the host's code from there:
/// copy what is needed out, then call. Nest locks in one fixed order only.
public final class Lock: @unchecked Sendable {
  private let word: UnsafeMutablePointer<UInt32>

  public init() {
    word = .allocate(capacity: 1)
    word.initialize(to: 0)
  }

  deinit { word.deallocate() }

  public func withLock<Result, Failure: Error>(
    _ body: () throws(Failure) -> Result
  ) throws(Failure) -> Result {
    mla_shim_lock(word)
    defer { mla_shim_unlock(word) }
    return try body()
  }
}

/// State that can only be reached under its lock; the rules of `Lock` hold.
public final class Guarded<State>: @unchecked Sendable {
  private let lock = Lock()
  private var state: State

  public init(_ state: consuming sending State) { self.state = state }

  public func withLock<Result, Failure: Error>(
    _ body: (inout State) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    try lock.withLock { () throws(Failure) in try body(&state) }
  }
}
