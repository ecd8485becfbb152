import MLACore
import MLAKernelABI
import MLATestSupport

/// One or two results of the same rows, and what a table's merge makes of them.
final class MergeProblem {
  /// `out` is `[rows, 1, dim]`, `lse` `[rows, 1, 1]`.
  typealias Side = (out: PoisonedTensor, lse: PoisonedTensor)

  let sides: [Side]
  let outFormat: ElementFormat
  let outMultiplier: Float
  private let isa: Int32
  private let outRowGap: Int

  init(
    _ isa: Int32, sides: [Side], outFormat: ElementFormat, outMultiplier: Float = 1,
    outRowGap: Int = 0
  ) {
    self.isa = isa
    self.sides = sides
    self.outFormat = outFormat
    self.outMultiplier = outMultiplier
    self.outRowGap = outRowGap
  }

  /// Rows of every kind: present on both sides, on one, on none; lse of
  /// -inf and of +inf; weights that differ a little and by 1e30.
  convenience init(_ isa: Int32, seed: UInt64) {
    var random = SplitMix64(seed: seed)
    let format = random.pick(ElementFormat.inputs)
    let (rows, dim) = (random.int(1...60), random.pick([128, 256, 64, 24, 33, 1]))
    let sides = (0..<random.int(1...2)).map { _ -> Side in
      let out = PoisonedTensor(format, rows: rows, dim: dim, rowGap: random.int(0...9))
      let lse = PoisonedTensor(.float32, rows: rows, dim: 1)
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
      isa, sides: sides, outFormat: outFormat,
      outMultiplier: outFormat == .float8E4M3FN ? random.pick([1, 0.5, 40, 1000]) : 1,
      outRowGap: random.int(0...9))
  }

  var rows: Int { sides[0].out.rows }
  var dim: Int { sides[0].out.dim }

  var reference: ReferenceAttention {
    ReferenceAttention(combining: sides.map(Self.reference), dim: dim)
  }

  private static func reference(_ side: Side) -> ReferenceAttention {
    var values = ReferenceAttention(combining: [], dim: 0)
    values.out = side.out.values
    values.lse = side.lse.values
    return values
  }

  /// - Parameter inPlace: the side whose view the result overwrites.
  func run(inPlace: Int? = nil) -> Side {
    let result: Side =
      inPlace.map { sides[$0] } ?? (
        PoisonedTensor(outFormat, rows: rows, dim: dim, rowGap: outRowGap),
        PoisonedTensor(.float32, rows: rows, dim: 1)
      )
    func side(_ side: Side) -> mla_merge_side {
      mla_merge_side(
        out: UnsafeRawPointer(side.out.pointer()), out_stride: Int64(side.out.rowStride),
        lse: UnsafePointer(side.lse.pointer().assumingMemoryBound(to: Float.self)))
    }
    var args = mla_merge_rows_args()
    args.num_rows = Int64(rows)
    args.v_head_dim = Int64(dim)
    // A single one has no prefix.
    args.prefix = sides.count > 1 ? side(sides[0]) : mla_merge_side()
    args.suffix = side(sides[sides.count - 1])
    args.format = sides[0].out.format.rawValue
    args.out_format = outFormat.rawValue
    args.out_multiplier = outMultiplier
    args.out = result.out.pointer()
    args.out_stride = Int64(result.out.rowStride)
    args.lse = result.lse.pointer().assumingMemoryBound(to: Float.self)
    KernelTables.table(cappedAt: isa).kernels.merge(&args)
    return result
  }
}
