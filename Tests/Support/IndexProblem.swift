import MLAKernelABI

/// A token's heads and some keys.
public struct IndexProblem: CustomStringConvertible {
  private let kernel: mla_index_kernel
  private let attention: mla_attention_kernel
  public let keys: PoisonedTensor
  public let queries: PoisonedTensor
  public let weights: [Float]
  /// Empty: there are none.
  let scales: [Float]

  public var description: String { "\(keys.rows) keys, \(queries.rows) heads of \(queries.dim)" }

  /// - Parameter table: whose kernel of the case's format is meant.
  public init(
    _ kernelCase: KernelCase, of table: mla_kernel_table, _ random: inout SplitMix64,
    keys count: Int? = nil, heads: Int? = nil, dim: Int? = nil
  ) {
    (kernel, attention) = (kernelCase.index(of: table), kernelCase.attention(of: table))
    let format = kernelCase.format
    let anyDim = random.pick([1, 2, 31, 64, 128, random.int(1...200)])
    let dim = dim ?? anyDim
    keys = PoisonedTensor(
      format, rows: count ?? random.int(1...Int(kernel.key_block)), dim: dim,
      rowGap: random.int(0...7))
    queries = PoisonedTensor(
      format, rows: heads ?? random.pick([1, 4, 8, 64, random.int(1...40)]), dim: dim,
      rowGap: random.int(0...7))
    keys.fillNormal(&random)
    queries.fillNormal(&random)
    weights = (0..<queries.rows).map { _ in Float(random.normal()) }
    scales = random.chance(0.5) ? [] : (0..<keys.rows).map { _ in Float(abs(random.normal())) }
  }

  /// - Parameter around: what the kernel's call is made by.
  public func run(
    garbage: UInt8, first: Int = 0, count: Int? = nil, around: (() -> Void) -> Void = { $0() }
  ) -> [Float] {
    let count = count ?? keys.rows
    let block = Int(kernel.key_block) * 4
    let packedKeys = pack(
      kernel.pack_keys, keys, first, count, bytes: kernel.packed_keys_bytes, garbage)
    let packedQueries = pack(
      kernel.pack_queries, queries, 0, queries.rows, bytes: kernel.packed_queries_bytes, garbage)
    let scaleMemory = GuardedMemory(byteCount: (block + 63) / 64 * 64)
    let scoreMemory = GuardedMemory(byteCount: (block + 63) / 64 * 64)
    for memory in [scaleMemory, scoreMemory] { memory.fill(byte: garbage) }
    let scales = self.scales.isEmpty ? [] : Array(self.scales[first..<first + count])
    scaleMemory.base.copyMemory(from: scales, byteCount: scales.count * 4)
    return weights.withUnsafeBufferPointer { weights in
      var args = mla_index_scores_args(
        keys: packedKeys.base, num_keys: Int64(count), queries: packedQueries.base,
        num_heads: Int64(queries.rows), head_dim: Int64(keys.dim), weights: weights.baseAddress,
        scales: scales.isEmpty ? nil : scaleMemory.base.assumingMemoryBound(to: Float.self),
        scores: scoreMemory.base.assumingMemoryBound(to: Float.self))
      attention.enter?()
      withExtendedLifetime((packedKeys, packedQueries, scaleMemory)) {
        around { kernel.score(&args) }
      }
      attention.leave?()
      return (0..<count).map { scoreMemory.base.load(fromByteOffset: $0 * 4, as: Float.self) }
    }
  }

  private func pack(
    _ pack: (UnsafePointer<mla_pack_rows_args>) -> Void, _ tensor: PoisonedTensor, _ first: Int,
    _ rows: Int, bytes: (Int64, Int64) -> Int64, _ garbage: UInt8
  ) -> GuardedMemory {
    let memory = GuardedMemory(byteCount: Int(bytes(Int64(rows), Int64(tensor.dim))))
    memory.fill(byte: garbage)
    var args = mla_pack_rows_args(
      rows: tensor.pointer(row: first), row_stride: Int64(tensor.rowStride), num_rows: Int64(rows),
      row_dim: Int64(tensor.dim), format: tensor.format.rawValue, packed: memory.base)
    pack(&args)
    return memory
  }

  /// The header's bound.
  public func reference(_ key: Int) -> (score: Double, bound: Double) {
    var (sum, sizes) = (0.0, 0.0)
    for head in 0..<queries.rows {
      var (product, size) = (0.0, 0.0)
      for d in 0..<keys.dim {
        let term = queries[head, 0, d] * keys[key, 0, d]
        (product, size) = (product + term, size + abs(term))
      }
      let weight = Double(weights[head])
      (sum, sizes) = (sum + weight * max(0, product), sizes + abs(weight) * size)
    }
    let scale = scales.isEmpty ? 1 : Double(scales[key])
    return (scale * sum, Double(keys.dim + queries.rows + 2) * 0x1p-24 * scale * sizes)
  }
}
