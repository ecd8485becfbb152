import Glibc
import MLAShims

/// Logical processors.
struct ProcessorSet: @unchecked Sendable {
  var set = mla_processor_set()

  /// Where the calling thread may run.
  static var thread: ProcessorSet { of(0) }

  /// Where a thread, 0 for the calling one, may run; none if unknown.
  private static func of(_ thread: Int32) -> ProcessorSet {
    var processors = ProcessorSet()
    mla_shim_thread_processors(thread, &processors.set)
    return processors
  }

  /// Where any thread of the process may run, but for the library's own, which run where
  /// this said before. A host may have pinned the calling thread to one core; what its
  /// other threads may use is the process's too.
  static var process: ProcessorSet {
    let own = Workers.threads
    var union = thread
    forEachThread { if !own.contains($0) { union.formUnion(of($0)) } }
    return union
  }

  /// Allocates nothing. No thread where /proc is of another namespace than the process:
  /// its ids are others.
  private static func forEachThread(_ body: (Int32) -> Void) {
    let knowsProcess = withUnsafeTemporaryAllocation(of: CChar.self, capacity: 16) { reader in
      reader.initialize(repeating: 0)
      guard let text = reader.baseAddress else { return false }
      return readlink("/proc/self", text, 15) > 0 && atoi(text) == getpid()
    }
    let list = knowsProcess ? mla_shim_open("/proc/self/task", O_RDONLY | O_CLOEXEC) : -1
    guard list >= 0 else { return }
    defer { close(list) }
    withUnsafeTemporaryAllocation(of: Int32.self, capacity: 128) { threads in
      while case let count = mla_shim_next_threads(list, threads.baseAddress, 128), count > 0 {
        for thread in threads.prefix(Int(count)) where thread > 0 { body(thread) }
      }
    }
  }

  private mutating func formUnion(_ other: ProcessorSet) {
    withUnsafeMutableBytes(of: &set) { own in
      withUnsafeBytes(of: other.set) { other in
        for i in own.indices { own[i] |= other[i] }
      }
    }
  }

  var count: Int {
    withUnsafeBytes(of: set) { bytes in
      bytes.bindMemory(to: UInt64.self).reduce(0) { $0 + $1.nonzeroBitCount }
    }
  }

  /// Lets a thread, 0 for the calling one, run on any of these and no other.
  func apply(to thread: Int32 = 0) {
    withUnsafePointer(to: set) { mla_shim_set_thread_processors(thread, $0) }
  }
}

extension ProcessorSet: Equatable {
  static func == (a: ProcessorSet, b: ProcessorSet) -> Bool {
    withUnsafeBytes(of: a.set) { a in withUnsafeBytes(of: b.set) { b in a.elementsEqual(b) } }
  }
}
