import MLACore
import MLAKernelABI
import MLATestSupport
import XCTest

/// Each kernel for rows as they lie of each table of this host against float64.
final class RowsKernelTests: XCTestCase {
  /// Three formats: 360 cases a table.
  private static let casesPerKernel: UInt64 = 120

  func testRandomProblemsAgainstFloat64() {
    for kernelCase in KernelCase.onThisHost {
      for seed in 0..<Self.casesPerKernel {
        let problem = RowsProblem(kernelCase, seed: seed)
        let (result, reference) = (problem.run(), problem.reference)
        let out = relativeL2(result.out.values, reference.out)
        let lse = maxDifference(result.lse.values, reference.lse)
        let what = "\(kernelCase) seed \(seed) \(problem.shape): out \(out), lse \(lse)"
        XCTAssertTrue(out <= kernelCase.outBound, what)
        XCTAssertTrue(lse <= KernelCase.lseBound, what)
        XCTAssertTrue(result.surroundingsAreIntact && problem.inputsAreIntact, what)
      }
    }
  }

  /// What was in the scratch, which addresses are fetched and where rows lie.
  func testBitsDependOnNothingElse() {
    for kernelCase in KernelCase.onThisHost {
      for seed: UInt64 in 0..<24 {
        let problem = RowsProblem(kernelCase, seed: seed)
        let expected = problem.run().bits
        XCTAssertEqual(problem.run(garbage: 0x3C).bits, expected, "\(kernelCase) seed \(seed)")
        XCTAssertEqual(problem.run(fetches: false).bits, expected, "\(kernelCase) seed \(seed)")
        XCTAssertEqual(problem.run(movesRows: true).bits, expected, "\(kernelCase) seed \(seed)")
      }
    }
  }

  /// A NaN of a row makes NaN of all that it reaches, and nothing else does.
  func testNaNOfARow() {
    for kernelCase in KernelCase.onThisHost {
      for rows in [1, 7, 8, 9, 65] {
        let problem = RowsProblem(
          kernelCase, RowsShape(qkDim: 64, vDim: 40, queries: 5, rows: rows), seed: 3)
        XCTAssertTrue(problem.run().out.values.allSatisfy(\.isFinite), "\(kernelCase)")
        problem.rows[rows - 1, 0, 0] = .nan
        XCTAssertTrue(problem.run().out.values.allSatisfy(\.isNaN), "\(kernelCase), \(rows) rows")
      }
    }
  }
}

private struct RowsShape {
  let qkDim: Int
  let vDim: Int
  let queries: Int
  let rows: Int

  static func random(_ random: inout SplitMix64) -> RowsShape {
    let qkDim = random.pick([576, 96, random.int(8...200)])
    // A mean or two may be next to 0, and then far off, relative to itself.
    return RowsShape(
      qkDim: qkDim, vDim: random.chance(0.5) ? max(8, qkDim - 64) : random.int(8...qkDim),
      queries: random.pick([1, 16, 17, 48, 49, random.int(1...130)]),
      rows: random.pick([0, 1, 63, 64, 65, 128, random.int(0...300)]))
  }
}

/// A token's heads and rows that all of them attend to.
private final class RowsProblem {
  struct Result {
    let out: PoisonedTensor
    let lse: PoisonedTensor

    var bits: [[UInt32]] { [out.bits, lse.bits] }
    var surroundingsAreIntact: Bool { out.surroundingsAreIntact && lse.surroundingsAreIntact }
  }

  let shape: RowsShape
  let q: PoisonedTensor
  /// As wide as kernels read them.
  let rows: PoisonedTensor
  private let kernelCase: KernelCase
  private let scale: Float
  /// Rows of each call.
  private var calls: [Range<Int>] = []

  init(_ kernelCase: KernelCase, _ shape: RowsShape, seed: UInt64) {
    var random = SplitMix64(seed: seed)
    (self.kernelCase, self.shape) = (kernelCase, shape)
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
      let most = min(Int(kernelCase.rows.row_block), shape.rows - begin)
      let count = random.chance(0.8) ? most : random.int(0...most)
      calls.append(begin..<begin + count)
      begin += count
    } while begin < shape.rows
  }

  convenience init(_ kernelCase: KernelCase, seed: UInt64) {
    var random = SplitMix64(seed: seed &+ 1000)
    self.init(kernelCase, .random(&random), seed: seed)
  }

  var inputsAreIntact: Bool { q.surroundingsAreIntact && rows.surroundingsAreIntact }

  var reference: ReferenceAttention {
    let all = rows.values
    func part(_ dim: Int) -> [Double] {
      (0..<shape.rows).flatMap { all[$0 * rows.dim..<$0 * rows.dim + dim] }
    }
    return ReferenceAttention(
      q: q.values, k: part(shape.qkDim), v: part(shape.vDim), qkDim: shape.qkDim, vDim: shape.vDim,
      scale: Double(scale))
  }

  func run(garbage: UInt8 = 0xFF, fetches: Bool = true, movesRows: Bool = false) -> Result {
    let (kernel, dims) = (kernelCase.rows, dims)
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
    kernelCase.kernel.enter?()
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
        kernel.attend(&args)
      }
    }
    kernelCase.kernel.leave?()
    XCTAssertTrue(partials.surroundingsAreIntact)
    return combined(partials)
  }

  private func combined(_ partials: PoisonedTensor) -> Result {
    let result = Result(
      out: PoisonedTensor(kernelCase.format, rows: shape.queries, dim: shape.vDim, rowGap: 3),
      lse: PoisonedTensor(.float32, rows: shape.queries, dim: 1))
    var args = mla_combine_args()
    args.num_rows = Int64(shape.queries)
    args.v_head_dim = Int64(shape.vDim)
    args.sum = partials.pointer().assumingMemoryBound(to: Float.self)
    args.row_stride = Int64(partials.rowStride)
    args.out_format = kernelCase.format.rawValue
    args.out_multiplier = 1
    args.out = result.out.pointer()
    args.out_stride = Int64(result.out.rowStride)
    args.lse = result.lse.pointer().assumingMemoryBound(to: Float.self)
    kernelCase.combine(&args)
    return result
  }

  private var dims: mla_kernel_dims {
    mla_kernel_dims(qk_head_dim: Int64(shape.qkDim), v_head_dim: Int64(shape.vDim))
  }
}
