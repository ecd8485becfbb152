/// The bytes that a strided view reaches: runs of equal length, repeated at up to four
/// strides. Tensors may interleave in memory, as columns of one buffer do, and share none.
struct StridedBytes {
  /// First byte; meaningless where there is none.
  private let start: Int
  /// Bytes that lie side by side; 0: an empty view.
  private var run = 0
  /// By falling stride; in place, as `Extents` is.
  private var strides = SIMD4<Int>()
  private var counts = SIMD4<Int>()
  private var depth = 0
  /// Whether bytes of a run belong to several elements.
  private var runRepeats = false

  /// - Parameter bytes: not beyond `endOfMemory`.
  init(_ bytes: Range<UInt>) {
    start = Int(bitPattern: bytes.lowerBound)
    run = bytes.count
  }

  init(_ tensor: TensorView) {
    start = Int(bitPattern: tensor.address)
    if tensor.isEmpty { return }
    run = tensor.type.bytes
    for i in tensor.shape.indices.reversed() where tensor.shape[i] > 1 {
      let (stride, count) = (tensor.strides[i] * tensor.type.bytes, tensor.shape[i])
      guard stride <= run, depth == 0 || stride == 0 else {
        insert(stride, count)
        continue
      }
      runRepeats = runRepeats || stride < run
      run += (count - 1) * stride
    }
  }

  private mutating func insert(_ stride: Int, _ count: Int) {
    var place = depth
    while place > 0, strides[place - 1] < stride {
      (strides[place], counts[place]) = (strides[place - 1], counts[place - 1])
      place -= 1
    }
    (strides[place], counts[place]) = (stride, count)
    depth += 1
  }

  /// From the first byte to behind the last of what is repeated from that level on.
  private func reach(_ level: Int) -> Int {
    var reach = run
    for inner in level..<max(level, depth) { reach += (counts[inner] - 1) * strides[inner] }
    return reach
  }
}

extension StridedBytes {
  /// Whether there is a byte that both reach. Beyond `mostSteps` of searching, which
  /// only views of very many rows at different strides take, it counts as found.
  func sharesBytes(with other: StridedBytes) -> Bool {
    guard run > 0, other.run > 0 else { return false }
    var steps = Self.mostSteps
    return meets(other, by: other.start - start, level: 0, otherLevel: 0, &steps)
  }

  /// Whether the view reaches a byte by two of its elements; likewise.
  var repeatsBytes: Bool {
    if run == 0 { return false }
    if runRepeats { return true }
    var steps = Self.mostSteps
    for level in 0..<depth {
      let most = min(counts[level] - 1, (reach(level + 1) - 1) / strides[level])
      for offset in 1..<most + 1
      where meets(
        self, by: offset * strides[level], level: level + 1, otherLevel: level + 1, &steps)
      {
        return true
      }
    }
    return false
  }

  private static let mostSteps = 1 << 16

  /// - Parameters:
  ///   - distance: from the first byte here to the other's first.
  ///   - level, otherLevel: what is repeated further out is settled.
  private func meets(
    _ other: StridedBytes, by distance: Int, level: Int, otherLevel: Int, _ steps: inout Int
  ) -> Bool {
    steps -= 1
    if steps < 0 { return true }
    guard distance < reach(level), -distance < other.reach(otherLevel) else { return false }
    let stride = max(
      level < depth ? strides[level] : 0,
      otherLevel < other.depth ? other.strides[otherLevel] : 0)
    if stride == 0 { return true }
    let mine = split(level, at: stride)
    let others = other.split(otherLevel, at: stride)
    // How many strides one of the pairs that might meet is further on than the other.
    let first = max(1 - others.count, floorDivided(distance - mine.reach, stride) + 1)
    let last = min(mine.count - 1, -floorDivided(-distance - others.reach, stride) - 1)
    guard first <= last else { return false }
    for offset in first...last
    where meets(
      other, by: distance - offset * stride, level: mine.next, otherLevel: others.next, &steps)
    {
      return true
    }
    return false
  }

  /// What is repeated at that stride, if anything: how often, how far one of it reaches.
  private func split(_ level: Int, at stride: Int) -> (count: Int, reach: Int, next: Int) {
    guard level < depth, strides[level] == stride else { return (1, reach(level), level) }
    return (counts[level], reach(level + 1), level + 1)
  }
}

private func floorDivided(_ a: Int, _ b: Int) -> Int {
  let (quotient, remainder) = a.quotientAndRemainder(dividingBy: b)
  return remainder < 0 ? quotient - 1 : quotient
}
