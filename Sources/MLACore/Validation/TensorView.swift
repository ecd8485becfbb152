import CMLAPrefill

/// A checked tensor of the caller's, on the CPU: every element that its shape
/// and strides reach lies in `bytes`.
public struct TensorView: Sendable {
  public let name: String
  public let type: ElementType
  public let shape: Extents
  /// In elements; 0 for dimensions of size 0 or 1 and where there are no elements,
  /// whatever the caller wrote.
  public let strides: Extents
  /// First element; meaningless where the tensor is empty.
  public let address: UInt

  /// Addresses from the first element's first byte to the last one's last.
  public let bytes: Range<UInt>

  public var isEmpty: Bool { Self.isEmpty(shape) }

  private static func isEmpty(_ shape: Extents) -> Bool {
    shape.indices.contains { shape[$0] == 0 }
  }

  /// A view of the library's own memory.
  init(name: String, type: ElementType, shape: Extents, strides: Extents, address: UInt) {
    self.name = name
    self.type = type
    self.shape = shape
    self.strides = strides
    self.address = address
    bytes = 0..<0
  }

  /// - Parameters:
  ///   - name: the field that held the pointer, for messages.
  ///   - rank: the number of dimensions it must have.
  public init(_ pointer: UnsafePointer<mla_tensor>?, name: String, rank: Int) throws(MLAError) {
    let raw = try readStruct(pointer, name: name, minimumSize: 96)
    try checkReserved(name, raw.reserved)
    guard let type = ElementType(rawValue: raw.dtype) else {
      throw .invalid("\(name).dtype", raw.dtype, "must be one of MLA_DTYPE_*")
    }
    guard raw.ndim == rank else {
      throw .invalid("\(name).ndim", raw.ndim, "must be \(rank)")
    }
    try Self.checkDevice(raw, name)
    self.name = name
    self.type = type
    (shape, strides) = try Self.readLayout(raw, name, rank: rank)
    address = UInt(bitPattern: raw.data)
    bytes = try Self.extent(name, type, shape, strides, address)
  }

  private static func checkDevice(_ raw: mla_tensor, _ name: String) throws(MLAError) {
    guard raw.device_type == MLA_DEVICE_CPU else {
      throw MLAError(
        MLA_ERROR_UNSUPPORTED_HARDWARE,
        "\(name).device_type = \(raw.device_type): no provider is registered for "
          + "\(deviceName(raw.device_type)) tensors; this library runs MLA_DEVICE_CPU (1)")
    }
    guard raw.device_id == 0 else {
      throw .invalid("\(name).device_id", raw.device_id, "must be 0 on the CPU")
    }
  }

  private static func deviceName(_ type: Int32) -> String {
    switch Int(type) {
    case MLA_DEVICE_CUDA: "CUDA"
    case MLA_DEVICE_CUDA_HOST: "CUDA host"
    case MLA_DEVICE_ROCM: "ROCm"
    case MLA_DEVICE_ROCM_HOST: "ROCm host"
    default: "such"
    }
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
      guard sizes[i] > 1 else {
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
    // Rows of no elements may be many, at strides that no memory has.
    if isEmpty(shape) { for i in shape.indices { strides[i] = 0 } }
    return (shape, strides)
  }

  private static func extent(
    _ name: String, _ type: ElementType, _ shape: Extents, _ strides: Extents, _ address: UInt
  ) throws(MLAError) -> Range<UInt> {
    if isEmpty(shape) { return 0..<0 }
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

extension TensorView {
  typealias SizeRule = (size: Int, rule: String)

  func requireShape(_ first: SizeRule, _ second: SizeRule? = nil, _ third: SizeRule? = nil)
    throws(MLAError)
  {
    try requireSize(first, ofDimension: 0)
    if let second { try requireSize(second, ofDimension: 1) }
    if let third { try requireSize(third, ofDimension: 2) }
  }

  private func requireSize(_ expected: SizeRule, ofDimension i: Int) throws(MLAError) {
    guard shape[i] == expected.size else {
      throw .invalid(
        "\(name).shape[\(i)]", shape[i], "must be \(expected.size), \(expected.rule)")
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

  /// An output must not reach one element twice: two threads would write it.
  func requireDistinctElements() throws(MLAError) {
    guard !StridedBytes(self).repeatsBytes else {
      throw .invalid(
        "\(name).strides", "\(strides)", "with shape \(shape) elements of an output overlap")
    }
  }

  func requireNoOverlap(with other: TensorView) throws(MLAError) {
    // Most tensors lie apart.
    guard !bytes.isEmpty, !other.bytes.isEmpty, bytes.overlaps(other.bytes),
      StridedBytes(self).sharesBytes(with: StridedBytes(other))
    else { return }
    throw .invalid(
      "\(name).data", "0x" + String(address, radix: 16), "must not overlap \(other.name)")
  }
}

extension ElementType {
  /// As the header spells it.
  public var name: String {
    switch self {
    case .float32: "MLA_DTYPE_FLOAT32"
    case .float16: "MLA_DTYPE_FLOAT16"
    case .bfloat16: "MLA_DTYPE_BFLOAT16"
    case .float8E4M3: "MLA_DTYPE_FLOAT8_E4M3FN"
    }
  }
}
