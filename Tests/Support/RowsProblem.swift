import MLAKernelABI

/// How many rows there are, and how many queries attend to them.
public struct RowsShape: Sendable {
  let qkDim: Int
  let vDim: Int
  let queries: Int
  let rows: Int

  public init(qkDim: Int, vDim: Int, queries: Int, rows: Int) {
    (self.qkDim, self.vDim, self.queries, self.rows) = (qkDim, vDim, queries, rows)
  }

  static func random(_ random: inout SplitMix64) -> RowsShape {
    let qkDim = random.pick([576, 96, random.int(8...200)])
    // A mean or two may be next to 0, and then far off, relative to itself.
    return RowsShape(
      qkDim: qkDim, vDim: random.chance(0.5) ? max(8, qkDim - 64) : random.int(8...qkDim),
      queries: random.pick([1, 16, 17, 48, 49, random.int(1...130)]),
      rows: random.pick([0, 1, 63, 64, 65, 128, random.int(0...300), random.int(0...900)]))
  }
}

/// A token's heads and rows that all of them attend to.
public final class RowsProblem {
  public struct Result {
    public let out: PoisonedTensor
    public let lse: PoisonedTensor
    /// Of the kernel's partial results.
    public let bits: [UInt32]
    public let surroundingsAreIntact: Bool
  }

  public let shape: RowsShape
  public let q: PoisonedTensor
  /// As wide as kernels read them.
  public let rows: PoisonedTensor
  private let kernelCase: KernelCase
  private let table: mla_kernel_table
  private let scale: Float
  /// Rows of each call.
  private var calls: [Range<Int>] = []

  /// - Parameters:
  ///   - table: whose kernel of the case's format is meant.
  ///   - wholeCalls: of as many rows as a call takes, where one may have fewer.
  public init(
    _ kernelCase: KernelCase, of table: mla_kernel_table, _ shape: RowsShape, seed: UInt64,
    wholeCalls: Bool = false
  ) {
    var random = SplitMix64(seed: seed)
    (self.kernelCase, self.table, self.shape) = (kernelCase, table, shape)
    q = PoisonedTensor(
      kernelCase.format, rows: shape.queries, dim: shape.qkDim, rowGap: random.int(0...9))
    rows = PoisonedTensor(
      kernelCase.format, rows: shape.rows, dim: (shape.qkDim + 31) / 32 * 32,
      rowGap: 2 * random.int(0...9), flush: .start)
    scale = Float(random.uniform(0.5...2) / Double(shape.qkDim).squareRoot())
    q.fillNormal(&random)
    rows.fillNormal(&random)
    for row in 0..<shape.rows { for d in shape.qkDim..<rows.dim { rows[row, 0, d] = 0 } }
    var begin = 0
    repeat {
      let most = min(Int(kernelCase.rows(of: table).row_block), shape.rows - begin)
      let count = wholeCalls || random.chance(0.8) ? most : random.int(0...most)
      calls.append(begin..<begin + count)
      begin += count
    } while begin < shape.rows
  }

  public convenience init(_ kernelCase: KernelCase, of table: mla_kernel_table, seed: UInt64) {
    var random = SplitMix64(seed: seed &+ 1000)
    self.init(kernelCase, of: table, .random(&random), seed: seed)
  }

  public var inputsAreIntact: Bool { q.surroundingsAreIntact && rows.surroundingsAreIntact }

  public var reference: ReferenceAttention {
    let all = rows.values
    func part(_ dim: Int) -> [Double] {
      (0..<shape.rows).flatMap { all[$0 * rows.dim..<$0 * rows.dim + dim] }
    }
    return ReferenceAttention(
      q: q.values, k: part(shape.qkDim), v: part(shape.vDim), qkDim: shape.qkDim, vDim: shape.vDim,
      scale: Double(scale))
  }

  /// - Parameter around: what each call of the kernel is made by.
  public func run(
    garbage: UInt8 = 0xFF, fetches: Bool = true, movesRows: Bool = false,
    around: (() -> Void) -> Void = { $0() }
  ) -> Result {
    let (kernel, attention) = (kernelCase.rows(of: table), kernelCase.attention(of: table))
    let scratch = GuardedMemory(byteCount: Int(kernel.scratch_bytes(dims, Int64(shape.queries))))
    scratch.fill(byte: garbage)
    let partials = PoisonedTensor(
      .float32, rows: shape.queries, dim: shape.vDim + MLA_PARTIAL_STATISTICS, rowGap: 5)
    let moved = PoisonedTensor(
      kernelCase.format, rows: shape.rows, dim: rows.dim, rowGap: 22, flush: .start)
    for row in 0..<shape.rows { for d in 0..<rows.dim { moved[row, 0, d] = rows[row, 0, d] } }
    let addresses = (0..<shape.rows).map {
      Optional(UnsafeRawPointer(movesRows ? moved.pointer(row: $0) : rows.pointer(row: $0)))
    }
    attention.enter?()
    for (i, call) in calls.enumerated() {
      addresses.withUnsafeBufferPointer { addresses in
        var args = mla_attend_rows_args()
        args.dims = dims
        args.q = i == 0 ? UnsafeRawPointer(q.pointer()) : nil
        args.q_stride = Int64(q.rowStride)
        args.num_queries = Int64(shape.queries)
        args.rows = addresses.baseAddress.map { $0 + call.lowerBound }
        args.num_rows = Int64(call.count)
        args.scale = scale
        args.format = kernelCase.format.rawValue
        args.is_first = i == 0 ? 1 : 0
        args.out = i == calls.count - 1 ? partials.pointer().assumingMemoryBound(to: Float.self) : nil
        args.out_stride = Int64(partials.rowStride)
        args.scratch = scratch.base
        args.next = addresses.baseAddress.map { $0 + call.upperBound }
        args.num_next = fetches ? Int64(shape.rows - call.upperBound) : 0
        args.next_bytes = Int64(rows.dim * kernelCase.format.byteCount)
        around { kernel.attend(&args) }
      }
    }
    attention.leave?()
    let bits = partials.bits
    let (out, lse) = combined(partials)
    return Result(
      out: out, lse: lse, bits: bits,
      surroundingsAreIntact: [partials, out, lse].allSatisfy(\.surroundingsAreIntact))
  }

  private func combined(_ partials: PoisonedTensor) -> (out: PoisonedTensor, lse: PoisonedTensor) {
    let out = PoisonedTensor(kernelCase.format, rows: shape.queries, dim: shape.vDim, rowGap: 3)
    let lse = PoisonedTensor(.float32, rows: shape.queries, dim: 1)
    var args = mla_combine_args()
    args.num_rows = Int64(shape.queries)
    args.v_head_dim = Int64(shape.vDim)
    args.sum = partials.pointer().assumingMemoryBound(to: Float.self)
    args.row_stride = Int64(partials.rowStride)
    args.out_format = kernelCase.format.rawValue
    args.out_multiplier = 1
    args.out = out.pointer()
    args.out_stride = Int64(out.rowStride)
    args.lse = lse.pointer().assumingMemoryBound(to: Float.self)
    table.combine(&args)
    return (out, lse)
  }

  private var dims: mla_kernel_dims {
    mla_kernel_dims(qk_head_dim: Int64(shape.qkDim), v_head_dim: Int64(shape.vDim))
  }
}
