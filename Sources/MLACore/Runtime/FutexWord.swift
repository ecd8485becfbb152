import MLAShims
import Synchronization

/// An atomic word that threads can sleep on.
struct FutexWord: @unchecked Sendable {
  private let atomic = onOwnLine(Atomic<UInt32>(0))

  func load() -> UInt32 { atomic.pointee.load(ordering: .sequentiallyConsistent) }
  func store(_ value: UInt32) {
    atomic.pointee.store(value, ordering: .sequentiallyConsistent)
  }
  /// Wraps around; returns the new value.
  @discardableResult
  func add(_ value: UInt32) -> UInt32 {
    atomic.pointee.wrappingAdd(value, ordering: .sequentiallyConsistent).newValue
  }
  @discardableResult
  func subtract(_ value: UInt32) -> UInt32 {
    atomic.pointee.wrappingSubtract(value, ordering: .sequentiallyConsistent).newValue
  }

  /// Sleeps while the word is `expected`; may return early.
  func wait(while expected: UInt32) { mla_shim_futex_wait(address, expected) }
  func wake(_ count: Int) { mla_shim_futex_wake(address, Int32(clamping: count)) }

  private var address: UnsafeMutablePointer<UInt32> {
    UnsafeMutableRawPointer(atomic).assumingMemoryBound(to: UInt32.self)
  }
}
