import CMLAPrefill
import MLACore
import MLATestSupport

/// One MLA layer's weights and dimensions.
struct LayerModel: @unchecked Sendable {
  static let allDims = [
    (nope: 128, rope: 64, v: 128, rank: 512), (192, 64, 256, 512), (256, 0, 256, 512),
    (64, 64, 128, 256), (64, 32, 64, 256), (7, 6, 9, 21),
    (0, 32, 16, 40), (9, 6, 40, 24),
  ]

  static let algorithms = [
    MLA_LAYER_ALGORITHM_AUTO, MLA_LAYER_ALGORITHM_UP_PROJECTED, MLA_LAYER_ALGORITHM_ABSORBED,
  ]

  let format: ElementFormat
  let numHeads: Int
  let nope: Int
  let rope: Int
  let vDim: Int
  let rank: Int
  var scale: Double
  /// [heads * (nope + v), rank].
  let weights: PoisonedTensor
  /// Of fp8 weights: one for blocks of 128 x 128, for rows, or for all of them.
  var weightScales: PoisonedTensor?

  var qkDim: Int { nope + rope }

  init(
    _ format: ElementFormat, numHeads: Int, dims: (nope: Int, rope: Int, v: Int, rank: Int),
    weights weightsFormat: ElementFormat? = nil, _ random: inout SplitMix64
  ) {
    self.format = format
    self.numHeads = numHeads
    (nope, rope, vDim, rank) = dims
    scale = 1 / Double(nope + rope).squareRoot()
    weights = PoisonedTensor(
      weightsFormat ?? format, rows: numHeads * (nope + vDim), dim: rank, rowGap: random.int(0...5))
    let deviation = 1 / Double(rank).squareRoot()
    guard weights.format == .float8E4M3FN else {
      weights.fillNormal(&random, deviation: deviation)
      return
    }
    weights.fillNormal(&random, deviation: 60)
    let blocks = [(1, 1), (weights.rows, 1), (weights.rows.blocks, rank.blocks)][random.int(0...2)]
    let scales = PoisonedTensor(
      .float32, rows: blocks.0, dim: blocks.1, rowGap: random.int(0...3))
    for i in 0..<blocks.0 {
      for j in 0..<blocks.1 { scales[i, 0, j] = deviation / 60 * random.uniform(0.3...1) }
    }
    weightScales = scales
  }

  /// Another's weights, with dimensions that are not theirs.
  init(
    _ other: LayerModel, numHeads: Int, dims: (nope: Int, rope: Int, v: Int, rank: Int)
  ) {
    (format, scale, weights, weightScales) = (
      other.format, other.scale, other.weights, other.weightScales
    )
    self.numHeads = numHeads
    (nope, rope, vDim, rank) = dims
  }

  func makeLayer(
    backend: String? = nil, cache: CacheModel? = nil, bound: Int64 = 0, maxISA: Int32 = 0,
    algorithm: Int = MLA_LAYER_ALGORITHM_AUTO, change: (inout mla_layer_config) -> Void = { _ in }
  ) throws -> MLALayer {
    var tensors = [view(weights)] + (weightScales.map { [scalesView($0)] } ?? [])
    return try tensors.withUnsafeMutableBufferPointer { tensors in
      let tensor = UnsafePointer(tensors.baseAddress!)
      var config = mla_layer_config(
        struct_size: UInt32(MemoryLayout<mla_layer_config>.size), num_heads: Int32(numHeads),
        scale: scale, kv_lora_rank: Int32(rank), qk_nope_head_dim: Int32(nope),
        qk_rope_head_dim: Int32(rope), v_head_dim: Int32(vDim), max_isa: maxISA,
        dtype: format.rawValue, backend: nil, kv_b_proj: tensor,
        cache_dtype: cache?.format.rawValue ?? 0, cache_scale: cache?.scale ?? 0,
        workspace_bound: bound, algorithm: Int32(algorithm), cache_format: cache?.code ?? 0,
        weight_scales: weightScales == nil ? nil : tensor + 1, device_type: 0, device_id: 0,
        weight_block_rows: 0, weight_block_columns: 0)
      change(&config)
      guard let backend else { return try Registry.shared.makeLayer(&config) }
      return try backend.withCString {
        config.backend = $0
        return try Registry.shared.makeLayer(&config)
      }
    }
  }

  /// One dimension for a scale that stands for itself and for those of rows that lie dense.
  private func scalesView(_ scales: PoisonedTensor) -> mla_tensor {
    var tensor = view(scales)
    let areOfRows = scales.rows == weights.rows && scales.rowStride == 1
    if scales.rows * scales.dim == 1 || areOfRows { tensor.ndim = 1 }
    return tensor
  }

  /// The weights as they are meant, [heads * (nope + v), rank].
  private var dequantizedWeights: [Double] {
    guard let weightScales else { return weights.values }
    let blockRows =
      weightScales.rows == 1 ? weights.rows : weightScales.rows == weights.rows ? 1 : 128
    let blockColumns = weightScales.dim == 1 ? rank : 128
    return (0..<weights.rows).flatMap { row in
      (0..<rank).map { d in
        weights[row, 0, d] * weightScales[row / blockRows, 0, d / blockColumns]
      }
    }
  }

  /// A prompt of that many tokens.
  func sequence(_ length: Int, _ random: inout SplitMix64) -> LayerSequence {
    func tensor(heads: Int = 1, _ dim: Int) -> PoisonedTensor {
      let tensor = PoisonedTensor(format, rows: length, heads: heads, dim: dim)
      tensor.fillNormal(&random)
      return tensor
    }
    return LayerSequence(
      q: tensor(heads: numHeads, qkDim), latents: tensor(rank), rope: tensor(rope))
  }

  /// [rows, qkDim] and [rows, vDim] of one head, from latents and rotary parts.
  func keysAndValues(head: Int, latents: [Double], rope ropeRows: [Double])
    -> (k: [Double], v: [Double])
  {
    let rows = latents.count / rank
    let all = dequantizedWeights
    let first = head * (nope + vDim)
    var (k, v): ([Double], [Double]) = ([], [])
    for row in 0..<rows {
      let up = (0..<nope + vDim).map { dot(all, (first + $0) * rank, latents, row * rank, rank) }
      k += up[..<nope] + ropeRows[row * rope..<(row + 1) * rope]
      v += up[nope...]
    }
    return (k, v)
  }
}

extension Int {
  /// Blocks of 128 that hold so many.
  fileprivate var blocks: Int { (self + 127) / 128 }
}

/// One request's whole sequence; what of it is context is up to a step.
struct LayerSequence: @unchecked Sendable {
  let q: PoisonedTensor
  let latents: PoisonedTensor
  let rope: PoisonedTensor

  var count: Int { q.rows }
}

private func dot(_ a: [Double], _ i: Int, _ b: [Double], _ j: Int, _ count: Int) -> Double {
  a.withUnsafeBufferPointer { a in
    b.withUnsafeBufferPointer { b in
      var sums = SIMD4<Double>()
      var sum = 0.0
      var n = 0
      while n + 4 <= count {
        let x = SIMD4(a[i + n], a[i + n + 1], a[i + n + 2], a[i + n + 3])
        let y = SIMD4(b[j + n], b[j + n + 1], b[j + n + 2], b[j + n + 3])
        sums += x * y
        n += 4
      }
      while n < count {
        sum += a[i + n] * b[j + n]
        n += 1
      }
      return sum + sums.sum()
    }
  }
}

/// [rows, heads, dim], or [rows, dim] where there is one head only and `rank` says so.
func view(_ tensor: PoisonedTensor, rank: Int32 = 2) -> mla_tensor {
  let (rows, heads, dim) = (Int64(tensor.rows), Int64(tensor.heads), Int64(tensor.dim))
  let (row, head) = (Int64(tensor.rowStride), Int64(tensor.headStride))
  return mla_tensor(
    struct_size: UInt32(MemoryLayout<mla_tensor>.size), dtype: tensor.format.rawValue,
    data: tensor.pointer(), device_type: Int32(MLA_DEVICE_CPU), device_id: 0, ndim: rank,
    reserved: 0, shape: rank == 2 ? (rows, dim, 0, 0) : (rows, heads, dim, 0),
    strides: rank == 2 ? (row, 1, 0, 0) : (row, head, 1, 0))
}
