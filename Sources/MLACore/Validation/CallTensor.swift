import CMLAPrefill

/// A tensor of the caller's, checked: every element that its shape and strides reach lies
/// in `bytes`.
struct CallTensor: Sendable {
  let name: String
  /// Strides are 0 for dimensions of size 0 or 1 and where there are no elements, whatever
  /// the caller wrote.
  let view: TensorView
  /// Addresses from the first element's first byte to the last one's last.
  let bytes: Range<UInt>

  var type: ElementType { view.type }
  var shape: Extents { view.shape }
  var strides: Extents { view.strides }
  /// The size of the last dimension.
  var width: Int { shape[shape.count - 1] }

  /// - Parameters:
  ///   - name: the field that held the pointer, for messages.
  ///   - device: where it must be.
  ///   - rank: the number of dimensions it must have.
  ///   - otherRank: another that it may have.
  ///   - rule: why that many, for messages.
  ///   - mayBeScales: whether it may be of the type that only scales of weights have.
  init(
    _ pointer: UnsafePointer<mla_tensor>?, name: String, on device: Device, rank: Int,
    or otherRank: Int? = nil, rule: String = "", mayBeScales: Bool = false
  ) throws(MLAError) {
    let raw = try readStruct(pointer, name: name)
    let type = try ElementType(raw.dtype, field: "\(name).dtype")
    guard type != .float8E8M0 || mayBeScales else {
      throw .invalid("\(name).dtype", type.name, "is for weight_scales alone")
    }
    guard Int(raw.ndim) == rank || Int(raw.ndim) == otherRank else {
      let other = otherRank.map { " or \($0)" } ?? ""
      throw .invalid("\(name).ndim", raw.ndim, "must be \(rank)\(other)\(rule)")
    }
    self.name = name
    try device.require(raw, name: name)
    let (shape, strides) = try Self.readLayout(raw, name, rank: Int(raw.ndim))
    view = TensorView(
      type: type, shape: shape, strides: strides, address: UInt(bitPattern: raw.data))
    bytes = try Self.extent(of: view, name)
  }

  /// nil where there may be none, and is none.
  init?(
    _ pointer: UnsafePointer<mla_tensor>?, name: String, on device: Device, rank: Int,
    mayBeNull: Bool
  ) throws(MLAError) {
    if pointer == nil && mayBeNull { return nil }
    try self.init(pointer, name: name, on: device, rank: rank)
  }

  /// Rows of 32-bit integers, of which there are no tensors: as of another type of that size.
  init(
    _ pointer: UnsafeRawPointer?, name: String, rows: Int, width: Int, stride: Int
  ) throws(MLAError) {
    self.name = name
    view = TensorView(
      type: .float32, shape: [rows, width],
      strides: [rows > 1 ? stride : 0, width > 1 ? 1 : 0], address: UInt(bitPattern: pointer))
    bytes = try Self.extent(of: view, name)
  }

  /// [rows, topk] positions, `stride` entries from one row to the next.
  init(
    topkIndices pointer: UnsafePointer<Int32>?, rows: Int, topk: Int32, stride: Int64
  ) throws(MLAError) {
    guard pointer != nil || rows == 0 else { throw .null("topk_indices") }
    guard stride >= Int64(topk) else {
      throw .invalid("topk_stride", stride, "must be at least topk (\(topk))")
    }
    guard stride <= Int64(endOfMemory / 4) / Int64(max(1, rows)) else {
      throw .invalid("topk_stride", stride, "reaches beyond the address space")
    }
    try self.init(
      pointer, name: "topk_indices", rows: rows, width: Int(topk), stride: Int(stride))
  }

  private static func readLayout(_ raw: mla_tensor, _ name: String, rank: Int) throws(MLAError)
    -> (Extents, Extents)
  {
    let sizes = SIMD4(raw.shape.0, raw.shape.1, raw.shape.2, raw.shape.3)
    let steps = SIMD4(raw.strides.0, raw.strides.1, raw.strides.2, raw.strides.3)
    var (shape, strides) = (Extents(), Extents())
    for i in 0..<rank {
      guard sizes[i] >= 0, sizes[i] <= maximumDimension else {
        throw .invalid("\(name).shape[\(i)]", sizes[i], "must be 0 to \(maximumDimension)")
      }
      shape.append(Int(sizes[i]))
    }
    // NumPy writes 0 for those of tensors without elements; others, what no memory has.
    let isEmpty = shape.isEmpty
    for i in 0..<rank {
      guard !isEmpty, sizes[i] > 1 else {
        strides.append(0)
        continue
      }
      guard steps[i] >= 0 else {
        throw .invalid("\(name).strides[\(i)]", steps[i], "must not be negative")
      }
      guard i < rank - 1 || steps[i] == 1 else {
        throw .invalid("\(name).strides[\(i)]", steps[i], "the last dimension must have stride 1")
      }
      strides.append(Int(steps[i]))
    }
    return (shape, strides)
  }

  private static func extent(of view: TensorView, _ name: String) throws(MLAError)
    -> Range<UInt>
  {
    let (type, shape, strides, address) = (view.type, view.shape, view.strides, view.address)
    if shape.isEmpty { return 0..<0 }
    guard address != 0 else { throw .null("\(name).data") }
    guard address % UInt(type.bytes) == 0 else {
      throw .invalid(
        "\(name).data", "0x" + String(address, radix: 16),
        "must be aligned to its elements of \(type.bytes) bytes")
    }
    var last: UInt = 0
    var overflows = false
    for i in shape.indices {
      let (step, a) = UInt(shape[i] - 1).multipliedReportingOverflow(by: UInt(strides[i]))
      let (sum, b) = last.addingReportingOverflow(step)
      overflows = overflows || a || b
      last = sum
    }
    let (count, a) = last.addingReportingOverflow(1)
    let (length, b) = count.multipliedReportingOverflow(by: UInt(type.bytes))
    let (end, c) = address.addingReportingOverflow(length)
    guard !overflows, !a, !b, !c, end <= endOfMemory else {
      throw .invalid(
        "\(name).strides", "\(strides)", "with shape \(shape) they reach beyond the address space")
    }
    return address..<end
  }
}

/// Far beyond memory for any useful tensor; keeps products of sizes in range.
let maximumDimension = Int64(Int32.max)

/// No memory of a process lies behind it, and sums of two addresses or offsets fit into
/// an Int.
let endOfMemory: UInt = 1 << 62

extension CallTensor {
  typealias SizeRule = (size: Int, rule: String)

  func requireShape(_ first: SizeRule, _ second: SizeRule? = nil, _ third: SizeRule? = nil)
    throws(MLAError)
  {
    try requireSize(first, ofDimension: 0)
    if let second { try requireSize(second, ofDimension: 1) }
    if let third { try requireSize(third, ofDimension: 2) }
  }

  func requireWidth(_ expected: SizeRule) throws(MLAError) {
    try requireSize(expected, ofDimension: shape.count - 1)
  }

  func requireSize(_ expected: SizeRule, ofDimension i: Int) throws(MLAError) {
    guard shape[i] == expected.size else {
      throw .invalid(
        "\(name).shape[\(i)]", shape[i], "must be \(expected.size), \(expected.rule)")
    }
  }

  func requireRange(_ range: ClosedRange<Int>, ofDimension i: Int) throws(MLAError) {
    guard range.contains(shape[i]) else {
      throw .invalid(
        "\(name).shape[\(i)]", shape[i], "must be \(range.lowerBound) to \(range.upperBound)")
    }
  }

  /// - Parameter field: what the offsets came from.
  func requireRows(of offsets: RowOffsets, _ field: String) throws(MLAError) {
    guard offsets.rowCount <= shape[0] else {
      throw .invalid(
        "\(field)[\(offsets.requestCount)]", offsets.rowCount,
        "must not be beyond the \(shape[0]) rows of \(name)")
    }
  }

  func requireType(_ expected: ElementType, _ rule: String) throws(MLAError) {
    guard type == expected else {
      throw .invalid("\(name).dtype", type.name, "must be \(expected.name), \(rule)")
    }
  }

  /// What attention reads and writes unquantized.
  func requireAttentionType() throws(MLAError) {
    guard type.isAttentionType else {
      throw .invalid("\(name).dtype", type.name, "must be fp32, fp16 or bf16")
    }
  }

  /// An output must not reach one element twice: two threads would write it. Nor what
  /// others read or write.
  func requireOutput(
    apartFrom a: CallTensor?, _ b: CallTensor?, _ c: CallTensor? = nil, _ d: CallTensor? = nil,
    _ e: CallTensor? = nil
  ) throws(MLAError) {
    guard !StridedBytes(view).repeatsBytes else {
      throw .invalid(
        "\(name).strides", "\(strides)", "with shape \(shape) elements of an output overlap")
    }
    try requireNoOverlap(with: a)
    try requireNoOverlap(with: b)
    try requireNoOverlap(with: c)
    try requireNoOverlap(with: d)
    try requireNoOverlap(with: e)
  }

  func requireNoOverlap(with other: CallTensor?) throws(MLAError) {
    // Most tensors lie apart.
    guard let other, !bytes.isEmpty, !other.bytes.isEmpty, bytes.overlaps(other.bytes),
      StridedBytes(view).sharesBytes(with: StridedBytes(other.view))
    else { return }
    throw .invalid(
      "\(name).data", "0x" + String(view.address, radix: 16), "must not overlap \(other.name)")
  }
}
