import Glibc
import MLAShims

/// C strings that stay where they are as long as the table does, one copy of
/// each distinct string. Not thread-safe by itself.
///
/// Each in memory of its own: a table that grew would move, and could need more than
/// there is.
final class CStringTable {
  private struct Entry {
    let next: UnsafeMutablePointer<Entry>?
    let bytes: Int

    /// What follows it: the text, then NUL.
    static func text(of entry: UnsafeMutablePointer<Entry>) -> UnsafeMutableRawPointer {
      UnsafeMutableRawPointer(entry + 1)
    }
  }

  private static let chainCount = 256
  private var chains: [UnsafeMutablePointer<Entry>?] = Array(repeating: nil, count: chainCount)

  init() {}

  deinit {
    for var chain in chains {
      while let entry = chain {
        chain = entry.pointee.next
        free(entry)
      }
    }
  }

  /// - Throws: where there is no memory for it.
  func pointer(to text: String) throws(MLAError) -> UnsafePointer<CChar> {
    var text = text
    // By bytes: Swift would take different spellings of one accent for equal.
    let found = text.withUTF8 { bytes in
      let chain = Self.chain(of: bytes)
      return known(bytes, in: chain) ?? add(bytes, to: chain)
    }
    guard let found else { throw .outOfMemory("copy of a name", bytes: text.utf8.count) }
    return UnsafePointer(Entry.text(of: found).assumingMemoryBound(to: CChar.self))
  }

  private func known(_ text: UnsafeBufferPointer<UInt8>, in chain: Int) -> UnsafeMutablePointer<
    Entry
  >? {
    var entry = chains[chain]
    while let one = entry {
      let bytes = UnsafeRawBufferPointer(start: Entry.text(of: one), count: one.pointee.bytes)
      if bytes.elementsEqual(text) { return one }
      entry = one.pointee.next
    }
    return nil
  }

  private func add(_ text: UnsafeBufferPointer<UInt8>, to chain: Int) -> UnsafeMutablePointer<
    Entry
  >? {
    let size = MemoryLayout<Entry>.stride + text.count + 1
    guard let memory = mla_shim_try_allocate(MemoryLayout<Entry>.alignment, size) else {
      return nil
    }
    let entry = memory.bindMemory(to: Entry.self, capacity: 1)
    entry.initialize(to: Entry(next: chains[chain], bytes: text.count))
    let copy = UnsafeMutableRawBufferPointer(start: Entry.text(of: entry), count: text.count + 1)
    copy.copyBytes(from: text)
    copy[text.count] = 0
    chains[chain] = entry
    return entry
  }

  /// FNV-1a.
  private static func chain(of text: UnsafeBufferPointer<UInt8>) -> Int {
    var hash: UInt32 = 0x811c_9dc5
    for byte in text { hash = (hash ^ UInt32(byte)) &* 0x0100_0193 }
    return Int(hash % UInt32(chainCount))
  }
}

/// Strings handed out for the life of the process: names and class paths, so
/// there are never more than were ever registered.
public enum InternedStrings {
  private static let table = Guarded(CStringTable())

  public static func pointer(to text: String) throws(MLAError) -> UnsafePointer<CChar> {
    try table.withLock { table throws(MLAError) in try table.pointer(to: text) }
  }
}
