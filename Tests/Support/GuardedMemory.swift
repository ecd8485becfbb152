import Foundation

/// Memory between two pages that nobody may touch, so that a read or write
/// past either end faults where it happens.
public final class GuardedMemory {
  /// Which end of the memory touches its guard page.
  public enum Flush: CaseIterable, Sendable { case start, end }

  public let base: UnsafeMutableRawPointer
  public let byteCount: Int
  private let mapping: UnsafeMutableRawPointer
  private let mappingSize: Int

  /// - Parameter flush: with `.end` the base has only the alignment that
  ///   `byteCount` is a multiple of.
  public init(byteCount: Int, flush: Flush = .end) {
    let page = Int(sysconf(Int32(_SC_PAGESIZE)))
    let inner = max((byteCount + page - 1) / page, 1) * page
    mappingSize = inner + 2 * page
    let mapped = mmap(
      nil, mappingSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    guard let mapped, mapped != MAP_FAILED else { fatalError("mmap of \(mappingSize) bytes") }
    mapping = mapped
    guard mprotect(mapping, page, PROT_NONE) == 0,
      mprotect(mapping + page + inner, page, PROT_NONE) == 0
    else { fatalError("mprotect") }
    self.byteCount = byteCount
    base = mapping + page + (flush == .end ? inner - byteCount : 0)
  }

  deinit { munmap(mapping, mappingSize) }

  public func fill(byte: UInt8) {
    UnsafeMutableRawBufferPointer(start: base, count: byteCount)
      .initializeMemory(as: UInt8.self, repeating: byte)
  }
}
