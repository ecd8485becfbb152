/// [num_requests + 1] row offsets, from 0, never falling.
public struct RowOffsets: Equatable, Sendable {
  private let offsets: FixedArray<Int32>

  public var requestCount: Int { offsets.count - 1 }
  public var rowCount: Int { Int(offsets[offsets.count - 1]) }
  public func begin(_ request: Int) -> Int { Int(offsets[request]) }
  public func count(_ request: Int) -> Int { Int(offsets[request + 1] - offsets[request]) }

  /// - Parameters:
  ///   - countField: the field that `requests` came from, for messages.
  ///   - field: the field that `pointer` came from.
  public init(
    _ pointer: UnsafePointer<Int32>?, requests: Int32, countField: String, field: String
  ) throws(MLAError) {
    try checkRange(countField, requests, 0...maximumRequests)
    guard let pointer else { throw .null(field) }
    // Copied, then checked: what the caller does to its own meanwhile changes nothing.
    offsets = try FixedArray(
      copying: UnsafeBufferPointer(start: pointer, count: Int(requests) + 1),
      for: "row offsets of a batch")
    try Self.check(offsets, field: field)
  }

  /// - Parameter offsets: at least one.
  static func check(_ offsets: FixedArray<Int32>, field: @autoclosure () -> String)
    throws(MLAError)
  {
    guard offsets[0] == 0 else { throw .invalid("\(field())[0]", offsets[0], "must be 0") }
    for i in 1..<offsets.count where offsets[i] < offsets[i - 1] {
      throw .invalid(
        "\(field())[\(i)]", offsets[i],
        "must not be below the offset before it, \(offsets[i - 1])")
    }
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
    a.offsets.isSame(as: b.offsets) || a.offsets.elementsEqual(b.offsets)
  }

  func isSame(as pointer: UnsafePointer<Int32>?, requests: Int32) -> Bool {
    guard let pointer, Int(requests) == requestCount else { return false }
    return offsets.elementsEqual(UnsafeBufferPointer(start: pointer, count: offsets.count))
  }

  /// As C reads them, while there are any.
  var pointer: UnsafePointer<Int32> { offsets.pointer }

  /// Causal self-attention: each request's queries see its own rows.
  var selfSpans: RequestSpans { RequestSpans(queries: self, keys: self) }
}

/// The rows of q and of k and v that are each request's.
struct RequestSpans: RandomAccessCollection, Sendable {
  let queries: RowOffsets
  let keys: RowOffsets

  var startIndex: Int { 0 }
  var endIndex: Int { queries.requestCount }

  subscript(request: Int) -> RequestSpan {
    RequestSpan(
      queryBegin: queries.begin(request), queryCount: queries.count(request),
      keyBegin: keys.begin(request), keyCount: keys.count(request))
  }
}
