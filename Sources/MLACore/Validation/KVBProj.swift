import CMLAPrefill

/// kv_b_proj as the caller has it, for each head the rows that make its keys,
/// then those that make its values. The weights are not copied.
struct KVBProj {
  let weights: CallTensor
  /// nil but for fp8.
  let scales: WeightScales?

  init(_ weights: UnsafePointer<mla_tensor>?, scales: UnsafePointer<mla_tensor>?) throws(MLAError) {
    let tensor = try CallTensor(weights, name: "config.kv_b_proj", on: .cpu, rank: 2)
    self.weights = tensor
    guard tensor.type == .float8E4M3 else {
      try tensor.requireAttentionType()
      if let scales {
        throw .invalid(
          "config.weight_scales", "\(scales)",
          "must be NULL for a kv_b_proj of \(tensor.type.name)")
      }
      self.scales = nil
      return
    }
    self.scales = try WeightScales(scales, of: tensor)
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

  /// As DeepSeek's checkpoints have them, if not one for the whole tensor.
  private static let blockSize = 128

  init(_ pointer: UnsafePointer<mla_tensor>?, of weights: CallTensor) throws(MLAError) {
    let name = "config.weight_scales"
    let rank = try readStruct(pointer, name: name).ndim == 1 ? 1 : 2
    let tensor = try CallTensor(pointer, name: name, on: .cpu, rank: rank)
    try tensor.requireType(.float32, "whatever kv_b_proj's")
    let (rows, columns) = (max(1, weights.shape[0]), max(1, weights.shape[1]))
    if tensor.shape[0] == rows, rank == 1 || tensor.shape[1] == 1, rows > 1 {
      (block, blocksPerRow) = ((1, columns), 1)
    } else if rank == 1 {
      try tensor.requireShape((1, "or \(rows), one for each row of kv_b_proj"))
      (block, blocksPerRow) = ((rows, columns), 1)
    } else {
      let size = Self.blockSize
      let counts = ((rows + size - 1) / size, (columns + size - 1) / size)
      try tensor.requireShape(
        (counts.0, "the rows of kv_b_proj / \(size), rounded up, or \(rows) with one column"),
        (counts.1, "the columns of kv_b_proj / \(size), rounded up"))
      (block, blocksPerRow) = ((size, size), counts.1)
    }
    values = try Self.values(tensor)
  }

  private static func values(_ tensor: CallTensor) throws(MLAError) -> FixedArray<Float> {
    let first = UnsafePointer<Float>(bitPattern: tensor.view.address)
    let columns = tensor.shape.count == 2 ? tensor.shape[1] : 1
    var values = try FixedArray<Float>(
      capacity: tensor.shape[0] * columns, for: "weight_scales")
    for row in 0..<tensor.shape[0] {
      for column in 0..<columns {
        // There is an element, so there is a first one.
        let scale = first.unsafelyUnwrapped[row * tensor.strides[0] + column]
        guard scale.isFinite, scale > 0 else {
          let index = tensor.shape.count == 2 ? "[\(row)][\(column)]" : "[\(row)]"
          throw .invalid(tensor.name + index, scale, "must be finite and above 0")
        }
        values.append(scale)
      }
    }
    return values
  }
}
