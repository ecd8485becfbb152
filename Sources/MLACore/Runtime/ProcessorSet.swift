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

  /// Where any thread of the process may run. A host may have pinned the calling
  /// thread to one core; what its other threads may use is the process's too.
  static var process: ProcessorSet {
    var union = ProcessorSet()
    mla_shim_process_processors(&union.set)
    return union
  }

  var count: Int {
    withUnsafeBytes(of: set) { bytes in
      bytes.bindMemory(to: UInt64.self).reduce(0) { $0 + $1.nonzeroBitCount }
    }
  }

  /// Lets the calling thread run on any of these and no other.
  func apply() { withUnsafePointer(to: set) { mla_shim_set_thread_processors($0) } }
}

extension ProcessorSet: Equatable {
  static func == (a: ProcessorSet, b: ProcessorSet) -> Bool {
    withUnsafeBytes(of: a.set) { a in withUnsafeBytes(of: b.set) { b in a.elementsEqual(b) } }
  }
}
