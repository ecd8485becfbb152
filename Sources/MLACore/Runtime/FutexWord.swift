import MLAShims
import Synchronization

/// An atomic word that threads can sleep on. It has a cache line pair of its
/// own, never moves and is never freed: a thread may still be about to wake the
/// sleepers of a word when its last user is gone.
struct FutexWord: @unchecked Sendable {
  private let atomic: UnsafeMutablePointer<Atomic<UInt32>>

  init() {
    let memory = UnsafeMutableRawPointer.allocate(byteCount: 128, alignment: 128)
    atomic = memory.bindMemory(to: Atomic<UInt32>.self, capacity: 1)
    atomic.initialize(to: Atomic(0))
  }

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
  func replace(_ expected: UInt32, with value: UInt32) -> Bool {
    atomic.pointee.compareExchange(
      expected: expected, desired: value, ordering: .sequentiallyConsistent
    ).exchanged
  }

  /// Sleeps while the word is `expected`; may return early.
  func wait(while expected: UInt32) { mla_shim_futex_wait(address, expected) }
  func wake(_ count: Int) { mla_shim_futex_wake(address, Int32(clamping: count)) }

  private var address: UnsafeMutablePointer<UInt32> {
    UnsafeMutableRawPointer(atomic).assumingMemoryBound(to: UInt32.self)
  }
}
