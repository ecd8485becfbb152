import Foundation
import MLACore
import MLAKernelABI
import MLATestSupport

/// Partial results of the same rows, and what a table's combine makes of them.
final class CombineProblem {
  let count: Int
  let rows: Int
  let dim: Int
  let outFormat: ElementFormat
  let outMultiplier: Float
  /// Those of the first partial result, then those of the others.
  let partials: PoisonedTensor
  private let isa: Int32

  init(
    _ isa: Int32, count: Int, rows: Int, dim: Int, outFormat: ElementFormat = .float32,
    outMultiplier: Float = 1, rowGap: Int = 0
  ) {
    (self.isa, self.count, self.rows, self.dim) = (isa, count, rows, dim)
    (self.outFormat, self.outMultiplier) = (outFormat, outMultiplier)
    partials = PoisonedTensor(
      .float32, rows: count * rows, dim: dim + MLA_PARTIAL_STATISTICS, rowGap: rowGap)
  }

  /// Rows of every kind: with keys everywhere, in some partial results, in none; weights
  /// that differ a little and by 1e30.
  convenience init(_ isa: Int32, seed: UInt64, outFormat: ElementFormat? = nil) {
    var random = SplitMix64(seed: seed)
    // Drawn in any case: a seed's numbers are the same in every format.
    let (drawn, multiplier) = (
      random.pick(ElementFormat.allCases), random.pick([Float(1), 0.5, 40, 1000])
    )
    let format = outFormat ?? drawn
    self.init(
      isa, count: random.pick([1, 2, 3, 17, 70]), rows: random.int(1...20),
      dim: random.pick([128, 256, 64, 24, 33, 1]), outFormat: format,
      outMultiplier: format == .float8E4M3FN ? multiplier : 1,
      rowGap: random.int(0...9))
    let deviation = random.pick([0.1, 3, 60])
    for row in 0..<count * rows {
      if random.chance(0.3) {
        set(row, reference: -.infinity, sum: 0)
      } else {
        let sum = random.pick([1, 700.25]) * (1 + abs(random.normal()))
        set(row, reference: deviation * random.normal(), sum: sum, rest: sum * 0.01 * random.normal())
        for d in 0..<dim { partials[row, 0, d] = sum * 3 * random.normal() }
      }
    }
  }

  func set(_ row: Int, reference: Double, sum: Double, rest: Double = 0, out: Double = 0) {
    for d in 0..<dim { partials[row, 0, d] = out }
    for (i, value) in [reference, sum, rest].enumerated() { partials[row, 0, dim + i] = value }
  }

  var reference: ReferenceAttention {
    ReferenceAttention(
      combining: (0..<count).map { index in
        var one = ReferenceAttention(combining: [], dim: 0)
        for row in index * rows..<(index + 1) * rows {
          let sum = partials[row, 0, dim + 1] + partials[row, 0, dim + 2]
          one.lse.append(sum == 0 ? -.infinity : partials[row, 0, dim] * log(2) + log(sum))
          for d in 0..<dim { one.out.append(sum == 0 ? 0 : partials[row, 0, d] / sum) }
        }
        return one
      }, dim: dim)
  }

  struct Result {
    let out: PoisonedTensor
    let lse: PoisonedTensor
    let surroundingsAreIntact: Bool
  }

  /// - Parameter calls: how many partial results each call adds, the last one the rest.
  func run(calls: [Int] = []) -> Result {
    let work = copy()
    let out = PoisonedTensor(outFormat, rows: rows, dim: dim, rowGap: 5)
    let lse = PoisonedTensor(.float32, rows: rows, dim: 1)
    var args = mla_combine_args()
    args.num_rows = Int64(rows)
    args.v_head_dim = Int64(dim)
    args.sum = work.pointer().assumingMemoryBound(to: Float.self)
    args.row_stride = Int64(work.rowStride)
    args.added_stride = Int64(rows * work.rowStride)
    args.out_format = outFormat.rawValue
    args.out_multiplier = outMultiplier
    args.out_stride = Int64(out.rowStride)
    var done = 1
    for added in calls + [count] {
      let added = min(added, count - done)
      if added > 0 {
        args.added = UnsafePointer(
          work.pointer(row: done * rows).assumingMemoryBound(to: Float.self))
      }
      args.num_added = Int64(added)
      done += added
      if done == count {
        args.out = out.pointer()
        args.lse = lse.pointer().assumingMemoryBound(to: Float.self)
      }
      KernelTables.table(cappedAt: isa).kernels.combine(&args)
      if done == count { break }
    }
    let addedRows = rows * (dim + MLA_PARTIAL_STATISTICS)
    return Result(
      out: out, lse: lse,
      surroundingsAreIntact: [work, out, lse].allSatisfy(\.surroundingsAreIntact)
        && work.bits.dropFirst(addedRows) == partials.bits.dropFirst(addedRows))
  }

  private func copy() -> PoisonedTensor {
    let made = PoisonedTensor(
      .float32, rows: partials.rows, dim: partials.dim,
      rowGap: partials.rowStride - partials.dim)
    for row in 0..<made.rows {
      for index in 0..<made.dim { made[row, 0, index] = partials[row, 0, index] }
    }
    return made
  }
}
