import MLACore
import MLAKernelABI
import MLATestSupport

/// Partial results of the same rows, and what a table's combine makes of them.
final class CombineProblem {
  /// `out` is `[rows, 1, dim]`, `lse` `[rows, 1, 1]`.
  typealias Partial = (out: PoisonedTensor, lse: PoisonedTensor)

  let partials: [Partial]
  let outFormat: ElementFormat
  let outMultiplier: Float
  private let isa: Int32
  private let outRowGap: Int
  private let lseGap: Int

  init(
    _ isa: Int32, partials: [Partial], outFormat: ElementFormat, outMultiplier: Float = 1,
    outRowGap: Int = 0, lseGap: Int = 0
  ) {
    self.isa = isa
    self.partials = partials
    self.outFormat = outFormat
    self.outMultiplier = outMultiplier
    self.outRowGap = outRowGap
    self.lseGap = lseGap
  }

  /// Rows of every kind: present everywhere, in some partials, in none; lse of
  /// -inf and of +inf; weights that differ a little and by 1e30.
  convenience init(_ isa: Int32, seed: UInt64) {
    var random = SplitMix64(seed: seed)
    let format = random.pick(ElementFormat.inputs)
    let (rows, dim) = (random.int(1...60), random.pick([128, 256, 64, 24, 33, 1]))
    let partials = (0..<random.int(1...5)).map { _ -> Partial in
      let out = PoisonedTensor(format, rows: rows, dim: dim, rowGap: random.int(0...9))
      let lse = PoisonedTensor(.float32, rows: rows, dim: 1, rowGap: random.int(0...3))
      out.fillNormal(&random, deviation: 3)
      lse.fillNormal(&random, deviation: random.pick([0.1, 3, 40]))
      for row in 0..<rows where random.chance(0.3) {
        lse[row, 0, 0] = random.chance(0.7) ? -.infinity : .infinity
        // Nobody wrote the values of a side without keys.
        for index in 0..<dim where random.chance(0.1) { out[row, 0, index] = .nan }
      }
      return (out, lse)
    }
    let outFormat = random.chance(0.5) ? format : random.pick(ElementFormat.allCases)
    self.init(
      isa, partials: partials, outFormat: outFormat,
      outMultiplier: outFormat == .float8E4M3FN ? random.pick([1, 0.5, 40, 1000]) : 1,
      outRowGap: random.int(0...9), lseGap: random.int(0...2))
  }

  var rows: Int { partials[0].out.rows }
  var dim: Int { partials[0].out.dim }

  var reference: ReferenceAttention {
    ReferenceAttention(combining: partials.map(Self.reference), dim: dim)
  }

  private static func reference(_ partial: Partial) -> ReferenceAttention {
    var values = ReferenceAttention(combining: [], dim: 0)
    values.out = partial.out.values
    values.lse = partial.lse.values
    return values
  }

  /// - Parameter inPlace: the partial whose view the result overwrites.
  func run(inPlace: Int? = nil) -> Partial {
    let result: Partial =
      inPlace.map { partials[$0] } ?? (
        PoisonedTensor(outFormat, rows: rows, dim: dim, rowGap: outRowGap),
        PoisonedTensor(.float32, rows: rows, dim: 1, rowGap: lseGap)
      )
    let views = partials.map {
      mla_partial(
        out: UnsafeRawPointer($0.out.pointer()), out_stride: Int64($0.out.rowStride),
        lse: UnsafePointer($0.lse.pointer().assumingMemoryBound(to: Float.self)),
        lse_stride: Int64($0.lse.rowStride))
    }
    views.withUnsafeBufferPointer { views in
      var args = mla_combine_args()
      args.num_rows = Int64(rows)
      args.v_head_dim = Int64(dim)
      args.partials = views.baseAddress
      args.num_partials = Int64(views.count)
      args.format = partials[0].out.format.rawValue
      args.out_format = outFormat.rawValue
      args.out_multiplier = outMultiplier
      args.out = result.out.pointer()
      args.out_stride = Int64(result.out.rowStride)
      args.lse = result.lse.pointer().assumingMemoryBound(to: Float.self)
      args.lse_stride = Int64(result.lse.rowStride)
      KernelTables.table(cappedAt: isa).kernels.combine(&args)
    }
    return result
  }
}
