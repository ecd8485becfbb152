import MLAKernelABI
import MLATestSupport

/// One head of one request with its numbers, and what a kernel makes of it.
final class AttentionProblem {
  let kernelCase: KernelCase
  let shape: AttentionShape
  let pattern: ScorePattern
  let scale: Float
  let q: PoisonedTensor
  let k: PoisonedTensor
  let v: PoisonedTensor
  private let kernel: mla_attention_kernel
  /// Rows of the attend calls, each at most `query_tile`.
  private let tiles: [Range<Int>]
  private let outRowGap: Int
  private let flush: GuardedMemory.Flush

  /// What one run wrote.
  struct Result {
    let out: PoisonedTensor
    /// `[queries]`; as it was before the run if the shape wants no lse.
    let lse: PoisonedTensor

    var bits: [[UInt32]] { [out.bits, lse.bits] }
    var surroundingsAreIntact: Bool { out.surroundingsAreIntact && lse.surroundingsAreIntact }
  }

  /// - Parameter scale: nil: the one that gives the pattern.
  init(
    _ kernelCase: KernelCase, _ shape: AttentionShape, _ pattern: ScorePattern,
    _ random: inout SplitMix64, scale: Float? = nil
  ) {
    self.kernelCase = kernelCase
    self.shape = shape
    self.pattern = pattern
    kernel = kernelCase.kernel
    func gap() -> Int { random.chance(0.5) ? 0 : random.int(1...70) }
    flush = random.pick(GuardedMemory.Flush.allCases)
    let format = kernelCase.format
    q = PoisonedTensor(format, rows: shape.numQueries, dim: shape.qkDim, rowGap: gap(), flush: flush)
    k = PoisonedTensor(format, rows: shape.numKeys, dim: shape.qkDim, rowGap: gap(), flush: flush)
    v = PoisonedTensor(format, rows: shape.numKeys, dim: shape.vDim, rowGap: gap(), flush: flush)
    outRowGap = gap()
    let natural = Float(pattern.fill(q, k, &random))
    self.scale = scale ?? natural
    v.fillNormal(&random)
    tiles = Self.cut(shape.numQueries, tile: Int(kernel.query_tile), &random)
  }

  convenience init(_ kernelCase: KernelCase, seed: UInt64) {
    var random = SplitMix64(seed: seed)
    let shape = AttentionShape.random(
      &random, format: kernelCase.format, keyBlock: Int(kernelCase.kernel.key_block))
    self.init(kernelCase, shape, .random(&random), &random)
  }

  var reference: ReferenceAttention {
    ReferenceAttention(
      q: q.values, k: k.values, v: v.values, qkDim: shape.qkDim, vDim: shape.vDim,
      scale: Double(scale), keyRange: shape.keyBegin..<shape.keyEnd,
      causalOffset: shape.causalOffset)
  }

  var inputsAreIntact: Bool { [q, k, v].allSatisfy(\.surroundingsAreIntact) }

  /// - Parameter garbage: fills the packed blocks and the scratch beforehand,
  ///   so that a result that depends on what was there shows.
  /// - Parameters:
  ///   - format: of out; nil: the shape's.
  ///   - isPartial: out has rows of partial results instead.
  func run(
    garbage: UInt8 = 0xFF, format: ElementFormat? = nil, multiplier: Float = 1,
    isPartial: Bool = false
  ) -> Result {
    let out = PoisonedTensor(
      isPartial ? .float32 : format ?? shape.outFormat, rows: shape.numQueries,
      dim: shape.vDim + (isPartial ? MLA_PARTIAL_STATISTICS : 0), rowGap: outRowGap, flush: flush)
    let lse = PoisonedTensor(.float32, rows: shape.numQueries, dim: 1, flush: flush)
    let dims = mla_kernel_dims(qk_head_dim: Int64(shape.qkDim), v_head_dim: Int64(shape.vDim))
    kernel.enter?()
    let packed = pack(dims, garbage)
    let scratch = GuardedMemory(byteCount: Int(kernel.scratch_bytes(dims)))
    for tile in tiles {
      scratch.fill(byte: garbage)
      attend(dims, tile, packed, scratch, Result(out: out, lse: lse), multiplier)
    }
    kernel.leave?()
    return Result(out: out, lse: lse)
  }

  /// Packs the blocks from the one of `keyBegin` on; those before stay garbage.
  private func pack(_ dims: mla_kernel_dims, _ garbage: UInt8) -> GuardedMemory {
    let block = Int(kernel.key_block)
    let blockBytes = Int(kernel.packed_block_bytes(dims))
    let blocks = (shape.numKeys + block - 1) / block
    let packed = GuardedMemory(byteCount: blocks * blockBytes)
    packed.fill(byte: garbage)
    for index in shape.keyBegin / block..<max(blocks, shape.keyBegin / block) {
      let row = index * block
      var args = mla_pack_args()
      args.dims = dims
      args.k = UnsafeRawPointer(k.pointer(row: row))
      args.v = UnsafeRawPointer(v.pointer(row: row))
      args.k_stride = Int64(k.rowStride)
      args.v_stride = Int64(v.rowStride)
      args.num_keys = Int64(min(block, shape.numKeys - row))
      args.format = kernelCase.format.rawValue
      args.packed = packed.base + index * blockBytes
      kernel.pack(&args)
    }
    return packed
  }

  private func attend(
    _ dims: mla_kernel_dims, _ tile: Range<Int>, _ packed: GuardedMemory, _ scratch: GuardedMemory,
    _ result: Result, _ multiplier: Float
  ) {
    var args = mla_attend_args()
    args.dims = dims
    args.q = UnsafeRawPointer(q.pointer(row: tile.lowerBound))
    args.q_stride = Int64(q.rowStride)
    args.num_queries = Int64(tile.count)
    args.packed = UnsafeRawPointer(packed.base)
    args.key_begin = Int64(shape.keyBegin)
    args.key_end = Int64(shape.keyEnd)
    args.causal_offset = shape.causalOffset.map { Int64($0 + tile.lowerBound) } ?? Int64.max / 2
    args.scale = scale
    args.format = kernelCase.format.rawValue
    let isPartial = result.out.dim > shape.vDim
    args.out_format = isPartial ? Int32(MLA_FORMAT_PARTIAL) : result.out.format.rawValue
    args.out_multiplier = multiplier
    args.out = result.out.pointer(row: tile.lowerBound)
    args.out_stride = Int64(result.out.rowStride)
    if shape.wantsLSE && !isPartial {
      args.lse = result.lse.pointer(row: tile.lowerBound).assumingMemoryBound(to: Float.self)
    }
    args.scratch = scratch.base
    kernel.attend(&args)
  }

  private static func cut(_ rows: Int, tile: Int, _ random: inout SplitMix64) -> [Range<Int>] {
    var tiles: [Range<Int>] = []
    var row = 0
    while row < rows {
      let most = min(tile, rows - row)
      let count = random.chance(0.6) ? most : random.int(1...most)
      tiles.append(row..<row + count)
      row += count
    }
    return tiles
  }
}
