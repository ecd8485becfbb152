import CMLAPrefill

/// kv_b_proj as the caller has it, for each head the rows that make its keys,
/// then those that make its values. On the CPU the weights are not copied.
struct KVBProj {
  let weights: CallTensor
  /// Keeps what is a copy.
  private let memory: HostTensor
  /// nil but for fp8.
  let scales: WeightScales?

  /// - Parameter block: what the caller says of the scales' blocks.
  init(_ weights: HostTensor, scales: HostTensor, block: (rows: Int32, columns: Int32))
    throws(MLAError)
  {
    let tensor = try CallTensor(weights.pointer, name: "config.kv_b_proj", on: .cpu, rank: 2)
    (self.weights, memory) = (tensor, weights)
    guard tensor.type == .float8E4M3 else {
      try tensor.requireAttentionType()
      if let scales = scales.pointer {
        throw .invalid(
          "config.weight_scales", "\(scales)",
          "must be NULL for a kv_b_proj of \(tensor.type.name)")
      }
      guard block == (0, 0) else {
        throw .invalid(
          "config.weight_block", "\(block.rows) x \(block.columns)",
          "must be 0 x 0 without weight_scales")
      }
      self.scales = nil
      return
    }
    self.scales = try WeightScales(scales.pointer, of: tensor, block: block)
  }
}

/// What quantized weights are multiplied by: one scale for each block of them, which
/// may be a row or the whole.
struct WeightScales {
  /// [blocks of rows, blocks of columns].
  let values: FixedArray<Float>
  /// Rows and columns of a block.
  let block: (rows: Int, columns: Int)
  let blocksPerRow: Int

  init(
    _ pointer: UnsafePointer<mla_tensor>?, of weights: CallTensor,
    block given: (rows: Int32, columns: Int32)
  ) throws(MLAError) {
    let name = "config.weight_scales"
    let rank = try readStruct(pointer, name: name).ndim == 1 ? 1 : 2
    let tensor = try CallTensor(pointer, name: name, on: .cpu, rank: rank, mayBeScales: true)
    guard tensor.type == .float32 || tensor.type == .float8E8M0 else {
      throw .invalid(
        "\(name).dtype", tensor.type.name,
        "must be MLA_DTYPE_FLOAT32 or MLA_DTYPE_FLOAT8_E8M0FNU, whatever kv_b_proj's")
    }
    let (rows, columns) = (max(1, weights.shape[0]), max(1, weights.shape[1]))
    if given != (0, 0) {
      block = try Self.checked(given, rows, columns)
      blocksPerRow = (columns - 1) / block.columns + 1
      try tensor.requireShape(
        ((rows - 1) / block.rows + 1, "the rows of kv_b_proj / \(block.rows), rounded up"),
        (blocksPerRow, "the columns of kv_b_proj / \(block.columns), rounded up"))
    } else if tensor.shape[0] == rows, rank == 1 || tensor.shape[1] == 1, rows > 1 {
      (block, blocksPerRow) = ((1, columns), 1)
    } else if rank == 1 {
      try tensor.requireShape((1, "or \(rows), one for each row of kv_b_proj"))
      (block, blocksPerRow) = ((rows, columns), 1)
    } else {
      // As DeepSeek's checkpoints have them.
      let size = 128
      let counts = ((rows + size - 1) / size, (columns + size - 1) / size)
      try tensor.requireShape(
        (counts.0, "the rows of kv_b_proj / \(size), rounded up, or \(rows) with one column"),
        (counts.1, "the columns of kv_b_proj / \(size), rounded up"))
      (block, blocksPerRow) = ((size, size), counts.1)
    }
    values = try Self.values(tensor)
  }

  private static func checked(
    _ block: (rows: Int32, columns: Int32), _ rows: Int, _ columns: Int
  ) throws(MLAError) -> (rows: Int, columns: Int) {
    try checkRange("config.weight_block_rows", block.rows, 1...Int32.max)
    try checkRange("config.weight_block_columns", block.columns, 1...Int32.max)
    return (min(Int(block.rows), rows), min(Int(block.columns), columns))
  }

  private static func values(_ tensor: CallTensor) throws(MLAError) -> FixedArray<Float> {
    let columns = tensor.shape.count == 2 ? tensor.shape[1] : 1
    var values = try FixedArray<Float>(
      capacity: tensor.shape[0] * columns, for: "weight_scales")
    for row in 0..<tensor.shape[0] {
      for column in 0..<columns {
        let scale = value(tensor, at: row * tensor.strides[0] + column)
        guard scale.isFinite, scale > 0 else {
          let index = tensor.shape.count == 2 ? "[\(row)][\(column)]" : "[\(row)]"
          throw .invalid(tensor.name + index, scale, "must be finite and above 0")
        }
        values.append(scale)
      }
    }
    return values
  }

  private static func value(_ tensor: CallTensor, at offset: Int) -> Float {
    let place = tensor.view.pointer(at: offset)
    guard tensor.type == .float8E8M0 else { return place.load(as: Float.self) }
    let exponent = place.load(as: UInt8.self)
    // The smallest is subnormal; all ones are no number.
    if exponent == 0 { return 0x1p-127 }
    return exponent == .max ? .nan : Float(bitPattern: UInt32(exponent) << 23)
  }
}
