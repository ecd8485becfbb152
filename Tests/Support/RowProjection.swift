import MLAKernelABI

/// A linear layer of random shape, by a projection kernel.
public struct RowProjection: CustomStringConvertible {
  let kernel: mla_projection_kernel
  let tokens: PoisonedTensor
  let weights: PoisonedTensor
  public let outFormat: ElementFormat

  public var numWeights: Int { weights.rows }
  var rowDim: Int { weights.dim }
  public var description: String { "\(tokens.rows) x \(numWeights) x \(rowDim) to \(outFormat.name)" }

  public init(
    _ kernel: mla_projection_kernel, _ format: ElementFormat, _ random: inout SplitMix64,
    tokens count: Int? = nil
  ) {
    self.kernel = kernel
    let dim = random.pick([1, 2, 31, 256, 512, random.int(1...600)])
    tokens = PoisonedTensor(
      format, rows: count ?? random.pick([random.int(1...5), 16, 48, 64, random.int(1...200)]), dim: dim,
      rowGap: random.int(0...7))
    weights = PoisonedTensor(
      format, rows: random.pick([1, 16, 17, 49, 128, random.int(1...150)]), dim: dim,
      rowGap: random.int(0...7))
    tokens.fillNormal(&random)
    weights.fillNormal(&random)
    outFormat = random.chance(0.7) ? format : random.pick(ElementFormat.inputs)
  }

  /// - Parameter attention: the same table's kernel, which prepares the thread.
  public func run(
    within attention: mla_attention_kernel, garbage: UInt8, first: Int = 0, count: Int? = nil
  ) -> PoisonedTensor {
    let rows = count ?? tokens.rows
    let packedTokens = pack(
      kernel.pack_tokens, tokens, first, rows, bytes: kernel.packed_tokens_bytes, garbage)
    let packedWeights = pack(
      kernel.pack_weights, weights, 0, numWeights, bytes: kernel.packed_weights_bytes, garbage)
    let out = PoisonedTensor(outFormat, rows: rows, dim: numWeights, rowGap: 5)
    var args = mla_project_args(
      tokens: packedTokens.base, num_tokens: Int64(rows), weights: packedWeights.base,
      num_weights: Int64(numWeights), row_dim: Int64(rowDim), out_format: outFormat.rawValue,
      out: out.pointer(), out_stride: Int64(out.rowStride))
    attention.enter?()
    withExtendedLifetime((packedTokens, packedWeights)) { kernel.project(&args) }
    attention.leave?()
    return out
  }

  private func pack(
    _ pack: (UnsafePointer<mla_pack_rows_args>) -> Void, _ tensor: PoisonedTensor, _ first: Int,
    _ rows: Int, bytes: (Int64, Int64) -> Int64, _ garbage: UInt8
  ) -> GuardedMemory {
    let memory = GuardedMemory(byteCount: Int(bytes(Int64(rows), Int64(rowDim))))
    memory.fill(byte: garbage)
    var args = mla_pack_rows_args(
      rows: tensor.pointer(row: first), row_stride: Int64(tensor.rowStride), num_rows: Int64(rows),
      row_dim: Int64(rowDim), format: tensor.format.rawValue, packed: memory.base)
    pack(&args)
    return memory
  }

  public var reference: [Double] {
    let (a, b) = (tokens.values, weights.values)
    return (0..<tokens.rows).flatMap { t in
      (0..<numWeights).map { w in
        (0..<rowDim).reduce(0.0) { $0 + a[t * rowDim + $1] * b[w * rowDim + $1] }
      }
    }
  }
}
