/// A `[rows, heads, dim]` tensor whose rows lie apart: everything around and
/// between them is a NaN of known bits. A kernel that reads there spreads the
/// NaN, one that writes there is found by `surroundingsAreIntact`, one that
/// reaches past the whole faults.
public final class PoisonedTensor {
  public let format: ElementFormat
  public let rows: Int
  public let heads: Int
  public let dim: Int
  /// In elements.
  public let rowStride: Int
  public let headStride: Int

  private let memory: GuardedMemory
  private let first: Int
  private let count: Int

  /// - Parameters:
  ///   - headGap: elements between the heads of a row.
  ///   - rowGap: elements between the last head of a row and the next row.
  ///   - flush: the end of the tensor that touches a guard page.
  public init(
    _ format: ElementFormat, rows: Int, heads: Int = 1, dim: Int, headGap: Int = 0,
    rowGap: Int = 0, flush: GuardedMemory.Flush = .end
  ) {
    self.format = format
    self.rows = rows
    self.heads = heads
    self.dim = dim
    headStride = dim + headGap
    rowStride = heads * headStride + rowGap
    let spare = 3
    let extent =
      rows == 0 || heads == 0 ? 0 : (rows - 1) * rowStride + (heads - 1) * headStride + dim
    count = extent + spare
    first = flush == .end ? spare : 0
    memory = GuardedMemory(byteCount: count * format.byteCount, flush: flush)
    for index in 0..<count { store(format.poison, index) }
  }

  /// First element of a row of a head.
  public func pointer(row: Int = 0, head: Int = 0) -> UnsafeMutableRawPointer {
    address(first + row * rowStride + head * headStride)
  }

  public subscript(row: Int, head: Int, index: Int) -> Double {
    get { format.value(bits: format.loadBits(pointer(row: row, head: head) + index * format.byteCount)) }
    set {
      format.storeBits(
        format.bits(newValue), to: pointer(row: row, head: head) + index * format.byteCount)
    }
  }

  public func fillNormal(_ random: inout SplitMix64, deviation: Double = 1, mean: Double = 0) {
    forEach { self[$0, $1, $2] = mean + deviation * random.normal() }
  }

  /// The elements, `[rows, heads, dim]`.
  public var values: [Double] {
    var all: [Double] = []
    all.reserveCapacity(rows * heads * dim)
    forEach { all.append(self[$0, $1, $2]) }
    return all
  }

  /// The elements' bits, for comparisons that NaN and -0 must not blur.
  public var bits: [UInt32] {
    var all: [UInt32] = []
    all.reserveCapacity(rows * heads * dim)
    forEach { all.append(format.loadBits(pointer(row: $0, head: $1) + $2 * format.byteCount)) }
    return all
  }

  /// The values of one head, `[rows, dim]`.
  public func values(head: Int) -> [Double] {
    (0..<rows).flatMap { row in (0..<dim).map { self[row, head, $0] } }
  }

  /// No element outside the rows has been written.
  public var surroundingsAreIntact: Bool {
    var outside = [Bool](repeating: true, count: count)
    forEach { outside[first + $0 * rowStride + $1 * headStride + $2] = false }
    return (0..<count).allSatisfy { !outside[$0] || format.loadBits(address($0)) == format.poison }
  }

  private func forEach(_ body: (Int, Int, Int) -> Void) {
    for row in 0..<rows { for head in 0..<heads { for index in 0..<dim { body(row, head, index) } } }
  }

  private func address(_ index: Int) -> UnsafeMutableRawPointer {
    memory.base + index * format.byteCount
  }

  private func store(_ bits: UInt32, _ index: Int) { format.storeBits(bits, to: address(index)) }
}

/// The codes of a tensor of fp32 numbers, each multiplied in fp32 and rounded once.
public func float8Bits(of tensor: PoisonedTensor, times multiplier: Float) -> [UInt32] {
  tensor.values.map { ElementFormat.float8E4M3FN.bits(Double(Float($0) * multiplier)) }
}
