/// Sizes or strides of a tensor's dimensions, at most four. They lie in place:
/// checking a run's tensors takes no memory.
public struct Extents: ExpressibleByArrayLiteral, Equatable, Sendable, CustomStringConvertible {
  private var values = SIMD4<Int>()
  public private(set) var count = 0

  public init(arrayLiteral elements: Int...) {
    for element in elements { append(element) }
  }

  mutating func append(_ value: Int) {
    values[count] = value
    count += 1
  }

  var indices: Range<Int> { 0..<count }

  /// Whether a tensor of these sizes has no elements.
  var isEmpty: Bool { indices.contains { values[$0] == 0 } }

  public subscript(dimension: Int) -> Int {
    get { values[dimension] }
    set { values[dimension] = newValue }
  }

  /// As an mla_tensor has them.
  var padded: (Int64, Int64, Int64, Int64) {
    (Int64(values[0]), Int64(values[1]), Int64(values[2]), Int64(values[3]))
  }

  public var description: String { "\(indices.map { values[$0] })" }
}
