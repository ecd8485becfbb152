import MLAShims

/// Logical processors.
struct ProcessorSet: @unchecked Sendable {
  var set = mla_processor_set()

  /// Where the calling thread may run.
  static var thread: ProcessorSet {
    var own = ProcessorSet()
    mla_shim_thread_processors(&own.set)
    return own
  }

  /// Where any thread of the process may run, but for the library's own, which run where
  /// this said before. A host may have pinned the calling thread to one core; what its
  /// other threads may use is the process's too.
  static var process: ProcessorSet {
    let own = Workers.threads
    var union = ProcessorSet()
    mla_shim_process_processors(&union.set, own, own.count)
    return union
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
