import MLAShims

/// State behind a lock that is safe across fork(): the child finds the state
/// whole and the lock free, whatever the parent's other threads were doing.
///
/// Keep what runs under the lock short, and never call the host's code from it:
/// copy what is needed out, then call. Locks may nest only in one fixed order.
public final class Guarded<State>: @unchecked Sendable {
  private let word: UnsafeMutablePointer<UInt32>
  private var state: State

  public init(_ state: consuming sending State) {
    word = .allocate(capacity: 1)
    word.initialize(to: 0)
    self.state = state
  }

  deinit { word.deallocate() }

  public func withLock<Result, Failure: Error>(
    _ body: (inout State) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    mla_shim_lock(word)
    defer { mla_shim_unlock(word) }
    return try body(&state)
  }
}

/// A lock alone, for state that lives elsewhere; the same rules hold.
public typealias Lock = Guarded<Void>

extension Guarded where State == Void {
  public convenience init() { self.init(()) }
}
