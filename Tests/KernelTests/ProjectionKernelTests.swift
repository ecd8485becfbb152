import MLACore
import MLAKernelABI
import MLATestSupport
import XCTest

/// Each projection kernel of each table of this host against float64.
final class ProjectionKernelTests: XCTestCase {
  func testRandomShapesAgainstFloat64() {
    for kernelCase in KernelCase.onThisHost {
      for seed: UInt64 in 0..<60 {
        var random = SplitMix64(seed: seed)
        let problem = ProjectionProblem(kernelCase, &random)
        let what = "\(kernelCase), seed \(seed): \(problem)"
        let (first, second) = (problem.run(garbage: 0xFF), problem.run(garbage: 0x7F))
        let bound = [ElementFormat.bfloat16: 3e-3, .float16: 4e-4][problem.outFormat] ?? 2e-6
        XCTAssertTrue(relativeL2(first.values, problem.reference) <= bound, what)
        XCTAssertEqual(first.bits, second.bits, what)
        XCTAssertTrue(first.surroundingsAreIntact, what)
      }
    }
  }

  /// Whatever tokens it stands beside.
  func testATokensBitsAreItsOwn() {
    for kernelCase in KernelCase.onThisHost {
      var random = SplitMix64(seed: 91)
      let problem = ProjectionProblem(kernelCase, &random, tokens: 130)
      let all = problem.run(garbage: 0xFF).bits
      for (first, count) in [(0, 1), (7, 17), (64, 33), (100, 30)] {
        let part = problem.run(garbage: 0xFF, first: first, count: count).bits
        let expected = all[first * problem.numWeights..<(first + count) * problem.numWeights]
        XCTAssertEqual(part, Array(expected), "\(kernelCase), \(count) tokens from \(first)")
      }
    }
  }
}

private struct ProjectionProblem: CustomStringConvertible {
  let kernel: mla_projection_kernel
  let tokens: PoisonedTensor
  let weights: PoisonedTensor
  let outFormat: ElementFormat

  var numWeights: Int { weights.rows }
  var rowDim: Int { weights.dim }
  var description: String { "\(tokens.rows) x \(numWeights) x \(rowDim) to \(outFormat.name)" }

  init(_ kernelCase: KernelCase, _ random: inout SplitMix64, tokens count: Int? = nil) {
    let table = KernelTables.table(cappedAt: kernelCase.isa).pointee
    kernel =
      switch kernelCase.format {
      case .bfloat16: table.bf16_projection
      case .float16: table.fp16_projection
      default: table.fp32_projection
      }
    let dim = random.pick([1, 2, 31, 256, 512, random.int(1...600)])
    tokens = PoisonedTensor(
      kernelCase.format, rows: count ?? random.pick([1, 16, 48, 64, random.int(1...200)]), dim: dim,
      rowGap: random.int(0...7))
    weights = PoisonedTensor(
      kernelCase.format, rows: random.pick([1, 16, 128, random.int(1...150)]), dim: dim,
      rowGap: random.int(0...7))
    tokens.fillNormal(&random)
    weights.fillNormal(&random)
    outFormat = random.chance(0.7) ? kernelCase.format : random.pick(ElementFormat.inputs)
  }

  func run(garbage: UInt8, first: Int = 0, count: Int? = nil) -> PoisonedTensor {
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
    withExtendedLifetime((packedTokens, packedWeights)) { kernel.project(&args) }
    return out
  }

  private func pack(
    _ pack: (UnsafePointer<mla_pack_rows_args>?) -> Void, _ tensor: PoisonedTensor, _ first: Int,
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

  var reference: [Double] {
    let (a, b) = (tokens.values, weights.values)
    return (0..<tokens.rows).flatMap { t in
      (0..<numWeights).map { w in
        (0..<rowDim).reduce(0.0) { $0 + a[t * rowDim + $1] * b[w * rowDim + $1] }
      }
    }
  }
}
