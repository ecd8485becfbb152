import Glibc
import MLAShims

/// Memory that runs use and give back. What is given back is kept for the next
/// run, up to a bound: fresh memory costs a page fault every 4 KiB.
public enum ScratchArena {
  struct Block {
    let base: UnsafeMutableRawPointer
    let bytes: Int
  }

  private struct Cache: @unchecked Sendable {
    /// Least recently given back first.
    var idle: [Block] = []
    var idleBytes = 0
  }

  private static let cache = Guarded(Cache())
  private static let maximumIdleBlocks = 32

  /// A gibibyte, less where that is more than a sixteenth of the memory there is.
  private static var maximumIdleBytes: Int { min(1 << 30, HostLimits.memoryBytes / 16) }
  private static let pageBytes = 4096
  private static let hugePageBytes = 2 << 20

  /// At least `bytes` bytes, aligned to 4096, with whatever in them.
  ///
  /// - Parameter purpose: names the memory in the message of a failure.
  public static func take(bytes: Int, for purpose: String) throws(MLAError) -> ScratchBuffer {
    guard let rounded = roundedUp(bytes), let block = takeIdle(rounded) ?? allocate(rounded)
    else { throw .outOfMemory(purpose, bytes: bytes) }
    return ScratchBuffer(block)
  }

  /// Memory for free(), which is not this arena's: but what is idle here goes back to the
  /// system before it is said to have none.
  static func allocate(_ bytes: Int, alignment: Int) -> UnsafeMutableRawPointer? {
    if let base = mla_shim_try_allocate(alignment, bytes) { return base }
    releaseIdle()
    return mla_shim_try_allocate(alignment, bytes)
  }

  /// Gives what is kept for later back to the system; returns how many bytes.
  @discardableResult
  public static func releaseIdle() -> Int {
    let released = cache.withLock { cache in
      defer { cache = Cache() }
      return cache
    }
    for block in released.idle {
      // What is freed may stay with the allocator; its pages need not.
      madvise(block.base, block.bytes, MADV_DONTNEED)
      free(block.base)
    }
    return released.idleBytes
  }

  static var idleBytes: Int { cache.withLock { $0.idleBytes } }

  /// To a multiple of an eighth of the largest power of two in it, so that runs
  /// of almost the same size use the same blocks; nil if that overflows.
  static func roundedUp(_ bytes: Int) -> Int? {
    guard bytes >= 0 else { return nil }
    let wanted = max(bytes, 1)
    let powerOfTwo = 1 << (Int.bitWidth - 1 - wanted.leadingZeroBitCount)
    let step = max(powerOfTwo / 8, pageBytes)
    let (sum, overflow) = wanted.addingReportingOverflow(step - 1)
    return overflow ? nil : sum & ~(step - 1)
  }

  /// The smallest idle block that is large enough, but not one that a larger run
  /// would miss.
  private static func takeIdle(_ bytes: Int) -> Block? {
    cache.withLock { cache in
      var best: Int?
      for index in cache.idle.indices {
        let size = cache.idle[index].bytes
        guard size >= bytes, size / 2 <= bytes else { continue }
        if best.map({ size < cache.idle[$0].bytes }) ?? true { best = index }
      }
      guard let best else { return nil }
      cache.idleBytes -= cache.idle[best].bytes
      return cache.idle.remove(at: best)
    }
  }

  fileprivate static func giveBack(_ block: Block) {
    // Files may be read for it.
    let mostBytes = maximumIdleBytes
    let dropped = cache.withLock { cache -> [Block] in
      cache.idle.append(block)
      cache.idleBytes += block.bytes
      var surplus = 0
      while cache.idleBytes > mostBytes || cache.idle.count - surplus > maximumIdleBlocks {
        cache.idleBytes -= cache.idle[surplus].bytes
        surplus += 1
      }
      if surplus == 0 { return [] }
      defer { cache.idle.removeFirst(surplus) }
      return Array(cache.idle.prefix(surplus))
    }
    for block in dropped { free(block.base) }
  }

  private static func allocate(_ bytes: Int) -> Block? {
    // The system may promise more than there is, and kill who comes to use it.
    guard bytes <= HostLimits.memoryBytes else { return nil }
    let isLarge = bytes >= 4 * hugePageBytes
    let alignment = isLarge ? hugePageBytes : pageBytes
    guard let base = allocate(bytes, alignment: alignment) else { return nil }
    if isLarge { madvise(base, bytes, MADV_HUGEPAGE) }
    return Block(base: base, bytes: bytes)
  }
}

/// Scratch memory, given back when the value ends.
public struct ScratchBuffer: ~Copyable, @unchecked Sendable {
  private let block: ScratchArena.Block

  /// Aligned to 4096 bytes.
  public var base: UnsafeMutableRawPointer { block.base }
  public var bytes: Int { block.bytes }

  fileprivate init(_ block: ScratchArena.Block) { self.block = block }

  deinit { ScratchArena.giveBack(block) }
}
