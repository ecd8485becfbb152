import Glibc
import MLAShims
import Synchronization

/// One parallel loop on the host's parallel_for.
///
/// The indices that the host passes are not relied on: each call takes the next
/// iteration, the caller takes what is left over, and the loop ends when all are
/// done. A host that calls too often, too rarely or returns before its calls do then
/// costs speed, not a wrong result; one that still calls when the loop is over calls
/// into freed memory.
struct HostLoop: ~Copyable {
  private let body: UnsafePointer<WorkerPool.Body>
  private let count: Int
  private let next = Atomic(0)
  private let done = Atomic(0)

  static func run(
    _ count: Int, _ body: UnsafePointer<WorkerPool.Body>, on host: HostSettings.ParallelFor
  ) {
    let loop = UnsafeMutablePointer<HostLoop>.allocate(capacity: 1)
    loop.initialize(to: HostLoop(body: body, count: count))
    defer {
      loop.deinitialize(count: 1)
      loop.deallocate()
    }
    Arithmetic.callers {
      host.function(host.context, Int64(count), { loop, _ in HostLoop.runNext(loop) }, loop)
    }
    while loop.pointee.runNext() {}
    while loop.pointee.done.load(ordering: .acquiring) < count { sched_yield() }
  }

  private init(body: UnsafePointer<WorkerPool.Body>, count: Int) {
    self.body = body
    self.count = count
  }

  private static func runNext(_ loop: UnsafeMutableRawPointer?) {
    guard let loop = loop?.assumingMemoryBound(to: HostLoop.self) else { return }
    // The host's thread may be one that is inside a loop already: the caller's.
    mla_shim_thread().pointee.loops += 1
    defer { mla_shim_thread().pointee.loops -= 1 }
    _ = loop.pointee.runNext()
  }

  /// False if no iteration was left.
  private borrowing func runNext() -> Bool {
    let index = next.wrappingAdd(1, ordering: .relaxed).oldValue
    guard index < count else { return false }
    body.pointee(index)
    done.wrappingAdd(1, ordering: .releasing)
    return true
  }
}
