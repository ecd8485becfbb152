import Glibc

/// As many elements as the caller's batch asks for: plain values, without references.
/// An `Array` that finds no memory ends the process; this throws.
///
/// Copies share their elements: whoever makes the array writes it, before it is handed
/// on.
public struct FixedArray<Element>: RandomAccessCollection, @unchecked Sendable {
  private final class Memory {
    let base: UnsafeMutableRawPointer

    init(_ base: UnsafeMutableRawPointer) { self.base = base }
    deinit { free(base) }
  }

  /// Keeps the elements; nil where there are none.
  private let memory: Memory?
  private let start: UnsafeMutablePointer<Element>
  private let capacity: Int
  public private(set) var count = 0

  public init() {
    (memory, start, capacity) = (nil, Self.nowhere, 0)
  }

  /// Never read.
  private static var nowhere: UnsafeMutablePointer<Element> {
    UnsafeMutablePointer(bitPattern: MemoryLayout<Element>.alignment).unsafelyUnwrapped
  }

  /// Room for elements, none of which is there yet.
  ///
  /// - Parameter purpose: names the memory in the message of a failure.
  public init(capacity: Int, for purpose: StaticString) throws(MLAError) {
    precondition(_isPOD(Element.self) && MemoryLayout<Element>.alignment <= Self.alignment)
    self.capacity = capacity
    if capacity == 0 {
      (memory, start) = (nil, Self.nowhere)
      return
    }
    let (bytes, overflows) = capacity.multipliedReportingOverflow(by: MemoryLayout<Element>.stride)
    guard !overflows, let base = Self.allocate(bytes) else {
      throw .outOfMemory("\(purpose)", bytes: overflows ? .max : bytes)
    }
    memory = Memory(base)
    start = base.bindMemory(to: Element.self, capacity: capacity)
  }

  public init(repeating element: Element, count: Int, for purpose: StaticString) throws(MLAError) {
    try self.init(capacity: count, for: purpose)
    start.initialize(repeating: element, count: count)
    self.count = count
  }

  /// - Parameter elements: gone through twice, to be counted and to be taken.
  init(_ elements: some Collection<Element>, for purpose: StaticString) throws(MLAError) {
    try self.init(capacity: elements.count, for: purpose)
    for element in elements { append(element) }
  }

  public init(copying elements: UnsafeBufferPointer<Element>, for purpose: StaticString)
    throws(MLAError)
  {
    try self.init(capacity: elements.count, for: purpose)
    if let first = elements.baseAddress { start.initialize(from: first, count: elements.count) }
    count = elements.count
  }

  /// Some of another's elements.
  private init(_ range: Range<Int>, of other: FixedArray) {
    precondition(range.lowerBound >= 0 && range.upperBound <= other.count)
    memory = other.memory
    start = other.start + range.lowerBound
    capacity = range.count
    count = range.count
  }

  /// Of all that malloc() gives.
  private static var alignment: Int { 16 }

  /// Those of an ordinary batch; where memory is short they come from the reserve.
  private static var fewBytes: Int { 4096 }

  private static func allocate(_ bytes: Int) -> UnsafeMutableRawPointer? {
    bytes <= fewBytes ? malloc(bytes) : ScratchArena.allocate(bytes, alignment: alignment)
  }

  public var startIndex: Int { 0 }
  public var endIndex: Int { count }

  public subscript(index: Int) -> Element {
    get {
      precondition(index >= 0 && index < count)
      return start[index]
    }
    set {
      precondition(index >= 0 && index < count)
      start[index] = newValue
    }
  }

  /// There must be room.
  public mutating func append(_ element: Element) {
    precondition(count < capacity)
    (start + count).initialize(to: element)
    count += 1
  }

  /// There must be room.
  mutating func append(copying elements: UnsafeBufferPointer<Element>) {
    precondition(elements.count <= capacity - count)
    if let first = elements.baseAddress {
      (start + count).initialize(from: first, count: elements.count)
    }
    count += elements.count
  }

  public mutating func removeAll() { count = 0 }

  /// The same elements, counted from 0.
  func part(_ range: Range<Int>) -> FixedArray { FixedArray(range, of: self) }

  /// As C reads them, while the array is.
  var pointer: UnsafePointer<Element> { UnsafePointer(start) }

  /// Whether the elements are the very same memory.
  func isSame(as other: FixedArray) -> Bool { start == other.start && count == other.count }
}

extension FixedArray {
  /// In place: Swift's own sorting takes memory. Equal elements come in any order, so
  /// a rule had better find none.
  mutating func sort(by areInOrder: (Element, Element) -> Bool) {
    if (1..<Swift.max(1, count)).allSatisfy({ !areInOrder(self[$0], self[$0 - 1]) }) { return }
    for root in (0..<count / 2).reversed() { sink(root, count, areInOrder) }
    for end in (1..<count).reversed() {
      (self[0], self[end]) = (self[end], self[0])
      sink(0, end, areInOrder)
    }
  }

  /// Restores the rule of a heap, of which the last in order is the root.
  private mutating func sink(_ root: Int, _ end: Int, _ areInOrder: (Element, Element) -> Bool) {
    let element = self[root]
    var place = root
    while case var child = 2 * place + 1, child < end {
      if child + 1 < end, areInOrder(self[child], self[child + 1]) { child += 1 }
      guard areInOrder(element, self[child]) else { break }
      self[place] = self[child]
      place = child
    }
    self[place] = element
  }
}
