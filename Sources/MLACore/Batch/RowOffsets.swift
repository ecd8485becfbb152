import Glibc

/// [num_requests + 1] row offsets, from 0, never falling.
public struct RowOffsets: Equatable, Sendable {
  private let offsets: FixedArray<Int32>

  public var requestCount: Int { offsets.count - 1 }
  public var rowCount: Int { Int(offsets[offsets.count - 1]) }
  public func begin(_ request: Int) -> Int { Int(offsets[request]) }
  public func count(_ request: Int) -> Int { Int(offsets[request + 1] - offsets[request]) }
  /// The request that a row belongs to.
  func request(ofRow row: Int) -> Int {
    firstNumber(in: 0..<requestCount) { begin($0 + 1) > row }
  }

  /// Rows of the longest request. Asked for in every run: several requests an instruction.
  var longest: Int {
    let offsets = UnsafeBufferPointer(start: pointer, count: requestCount + 1)
    return Int((0..<requestCount).reduce(0) { max($0, offsets[$1 + 1] &- offsets[$1]) })
  }

  init(checked offsets: FixedArray<Int32>) { self.offsets = offsets }

  /// - Parameter lengths: rows of each request; together they fit into an int32.
  init(lengths: some Collection<Int>) throws(MLAError) {
    var offsets = try FixedArray<Int32>(
      capacity: lengths.count + 1, for: "row offsets of a batch")
    offsets.append(0)
    for length in lengths { offsets.append(offsets[offsets.count - 1] + Int32(length)) }
    self.offsets = offsets
  }

  public static func == (a: RowOffsets, b: RowOffsets) -> Bool {
    a.offsets.isSame(as: b.offsets) || a.isEqual(to: b.pointer, requests: b.requestCount)
  }

  func isSame(as pointer: UnsafePointer<Int32>?, requests: Int32) -> Bool {
    pointer.map { isEqual(to: $0, requests: Int(requests)) } ?? false
  }

  private func isEqual(to pointer: UnsafePointer<Int32>, requests: Int) -> Bool {
    guard requests == requestCount else { return false }
    return memcmp(offsets.pointer, pointer, offsets.count * MemoryLayout<Int32>.stride) == 0
  }

  /// As C reads them, while there are any.
  var pointer: UnsafePointer<Int32> { offsets.pointer }

  /// Causal self-attention: each request's queries see its own rows.
  var selfSpans: RequestSpans { RequestSpans(queries: self, keys: self, causal: .end) }
}
