import MLAKernelABI

/// A head's block of keys and values made from random latents, by a table's
/// `project_block` and by way of rows.
public struct BlockProjection: CustomStringConvertible {
  let attention: mla_attention_kernel
  let projection: mla_projection_kernel
  let latents: PoisonedTensor
  let keyWeights: PoisonedTensor
  let valueWeights: PoisonedTensor
  let ropes: PoisonedTensor
  let dims: mla_kernel_dims

  private var format: ElementFormat { latents.format }
  private var keys: Int { latents.rows }
  private var nope: Int { keyWeights.rows }
  private var rope: Int { ropes.dim }
  private var v: Int { valueWeights.rows }

  public var description: String {
    "\(keys) keys of \(nope)/\(rope)/\(v) from \(latents.dim), \(format.name)"
  }

  public init(
    _ attention: mla_attention_kernel, _ projection: mla_projection_kernel,
    _ format: ElementFormat, keys: Int, nope: Int, rope: Int, v: Int, rank: Int,
    _ random: inout SplitMix64
  ) {
    (self.attention, self.projection) = (attention, projection)
    latents = PoisonedTensor(format, rows: keys, dim: rank, rowGap: 1)
    keyWeights = PoisonedTensor(format, rows: nope, dim: rank, rowGap: 3)
    valueWeights = PoisonedTensor(format, rows: v, dim: rank)
    ropes = PoisonedTensor(format, rows: keys, dim: rope, rowGap: 2)
    dims = mla_kernel_dims(qk_head_dim: Int64(nope + rope), v_head_dim: Int64(v))
    let deviation = 1 / Double(rank).squareRoot()
    latents.fillNormal(&random)
    keyWeights.fillNormal(&random, deviation: deviation)
    valueWeights.fillNormal(&random, deviation: deviation)
    ropes.fillNormal(&random)
  }

  /// Random dimensions, those of models among them.
  public init(
    _ attention: mla_attention_kernel, _ projection: mla_projection_kernel,
    _ format: ElementFormat, _ random: inout SplitMix64
  ) {
    let models = [(128, 64, 128), (192, 64, 256), (256, 0, 256), (64, 64, 128), (64, 32, 64)]
    let (nope, rope, v) =
      random.chance(0.5)
      ? random.pick(models) : (random.int(0...90), random.int(1...70), random.int(1...100))
    let block = Int(attention.key_block)
    self.init(
      attention, projection, format, keys: random.pick([block, random.int(1...block)]),
      nope: nope, rope: rope, v: v, rank: random.pick([64, 96, random.int(1...130)]), &random)
  }

  /// Keys that do not exist, whose latents are zeros, must not become NaN by it.
  public func makeAWeightInfinite() {
    for weights in [keyWeights, valueWeights] where weights.rows > 0 {
      weights[weights.rows - 1, 0, 0] = .infinity
    }
  }

  /// The packed block; what the kernel did not write is as it was in both.
  ///
  /// - Parameter around: what the call of the kernel is made within.
  public func fused(around: (() -> Void) -> Void = { $0() }) -> [UInt8] {
    let tokens = pack(projection.pack_tokens, latents, projection.packed_tokens_bytes)
    let keyRows = pack(projection.pack_weights, keyWeights, projection.packed_weights_bytes)
    let valueRows = pack(projection.pack_weights, valueWeights, projection.packed_weights_bytes)
    return packedBlock { packed in
      var args = mla_project_block_args(
        dims: dims, tokens: tokens.base, num_keys: Int64(keys), row_dim: Int64(latents.dim),
        key_weights: nope == 0 ? nil : keyRows.base, nope_dim: Int64(nope),
        value_weights: valueRows.base, rope: rope == 0 ? nil : UnsafeRawPointer(ropes.pointer()),
        rope_stride: Int64(ropes.rowStride), format: format.rawValue, packed: packed)
      withExtendedLifetime((tokens, keyRows, valueRows)) {
        around { projection.project_block(&args) }
      }
    }
  }

  /// The same by projecting into rows and packing those.
  public func byWayOfRows() -> [UInt8] {
    let k = PoisonedTensor(format, rows: keys, dim: nope + rope)
    let values = PoisonedTensor(format, rows: keys, dim: v)
    for row in 0..<keys { for d in 0..<rope { k[row, 0, nope + d] = ropes[row, 0, d] } }
    project(keyWeights, into: k)
    project(valueWeights, into: values)
    return packedBlock { packed in
      var args = mla_pack_args(
        dims: dims, k: k.pointer(), v: values.pointer(), k_stride: Int64(k.rowStride),
        v_stride: Int64(values.rowStride), num_keys: Int64(keys), format: format.rawValue,
        packed: packed, next_k: nil, next_v: nil)
      attention.pack(&args)
    }
  }

  private func project(_ weights: PoisonedTensor, into out: PoisonedTensor) {
    if weights.rows == 0 { return }
    let tokens = pack(projection.pack_tokens, latents, projection.packed_tokens_bytes)
    let rows = pack(projection.pack_weights, weights, projection.packed_weights_bytes)
    var args = mla_project_args(
      tokens: tokens.base, num_tokens: Int64(keys), weights: rows.base,
      num_weights: Int64(weights.rows), row_dim: Int64(latents.dim), out_format: format.rawValue,
      out: out.pointer(), out_stride: Int64(out.rowStride))
    withExtendedLifetime((tokens, rows)) {
      attention.enter?()
      projection.project(&args)
      attention.leave?()
    }
  }

  private func packedBlock(_ body: (UnsafeMutableRawPointer) -> Void) -> [UInt8] {
    let memory = GuardedMemory(byteCount: Int(attention.packed_block_bytes(dims)))
    memory.fill(byte: 0xFF)
    attention.enter?()
    body(memory.base)
    attention.leave?()
    return [UInt8](UnsafeRawBufferPointer(start: memory.base, count: memory.byteCount))
  }

  private func pack(
    _ pack: (UnsafePointer<mla_pack_rows_args>) -> Void, _ tensor: PoisonedTensor,
    _ bytes: (Int64, Int64) -> Int64
  ) -> GuardedMemory {
    let memory = GuardedMemory(byteCount: Int(bytes(Int64(tensor.rows), Int64(tensor.dim))))
    if tensor.rows == 0 { return memory }
    var args = mla_pack_rows_args(
      rows: tensor.pointer(), row_stride: Int64(tensor.rowStride), num_rows: Int64(tensor.rows),
      row_dim: Int64(tensor.dim), format: tensor.format.rawValue, packed: memory.base)
    pack(&args)
    return memory
  }
}
