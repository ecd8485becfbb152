import Foundation
import MLAKernelABI
import MLATestSupport
import XCTest

/// Prints a number for the bits of each result, which are the same on any CPU, whether
/// tiles are its own, carried out by signals or modelled like all of the instructions:
/// `make test` and `make test-amx` compare them.
final class AMXBitsTests: XCTestCase {
  override func setUpWithError() throws { try requireAMX() }

  func testAttention() {
    let cases = [
      AttentionCase(queries: 64, keys: 600, causalOffset: 536, deviation: 3),
      AttentionCase(qkDim: 256, vDim: 256, queries: 33, keys: 520, causalOffset: 487, deviation: 8),
      AttentionCase(qkDim: 33, vDim: 17, queries: 70, keys: 90, deviation: 0.1, format: .float32),
      AttentionCase(input: .float16, queries: 45, keys: 600, causalOffset: 555, deviation: 2),
      AttentionCase(input: .float32, queries: 45, keys: 600, causalOffset: 555, deviation: 2),
      AttentionCase(
        input: .float32, qkDim: 33, vDim: 17, queries: 70, keys: 530, causalOffset: 460,
        deviation: 60, format: .bfloat16),
      AttentionCase(qkDim: 64, vDim: 77, queries: 100, keys: 1100, causalOffset: -40, format: .float16),
      AttentionCase(
        input: .float16, qkDim: 1, vDim: 9, queries: 31, keys: 513, keyRange: 0..<301, deviation: 20,
        format: .float8E4M3FN, multiplier: 37.3),
      AttentionCase(
        input: .float32, qkDim: 576, vDim: 512, queries: 16, keys: 530, keyRange: 512..<530,
        scale: -0.1, wantsLSE: false),
      AttentionCase(qkDim: 40, vDim: 72, queries: 256, keys: 256, causalOffset: 0, scale: 0),
    ]
    for (index, attention) in cases.enumerated() {
      let expected = Self.digest(attention)
      for tile in [32, 37] {
        XCTAssertEqual(Self.digest(attention, tile: tile), expected, "attention \(index), tiles of \(tile)")
      }
      // As after another request: the scratch memory holds what a call left in it.
      XCTAssertEqual(
        Self.digest(attention) { call in
          call()
          call()
        }, expected, "attention \(index), twice")
      print("bits attention \(index): \(expected)")
    }
  }

  func testAttentionOnSeveralThreads() {
    for input in ElementFormat.inputs {
      let attention = AttentionCase(input: input, queries: 70, keys: 520, causalOffset: 450, deviation: 3)
      let expected = Self.digest(attention)
      DispatchQueue.concurrentPerform(iterations: 3) { thread in
        XCTAssertEqual(
          Self.digest(attention, tile: [256, 64, 32][thread]), expected, "\(input), thread \(thread)")
      }
    }
  }

  func testProjection() {
    for input in ElementFormat.inputs {
      let kernels = KernelCase(isa: Int32(MLA_FAMILY_AMX), format: input)
      for seed: UInt64 in 0..<3 {
        var random = SplitMix64(seed: seed)
        let problem = BlockProjection(
          kernels.attention(of: amxTable), kernels.projection(of: amxTable), input, &random)
        let block = problem.fused()
        XCTAssertEqual(Self.digest(block), Self.digest(problem.byWayOfRows()), "\(problem)")
        print("bits projection \(input.name) \(seed): \(Self.digest(block))")
      }
    }
  }

  /// A token's heads and rows anywhere, over several calls.
  func testRows() {
    let shapes = [
      RowsShape(qkDim: 576, vDim: 512, queries: 16, rows: 300),
      RowsShape(qkDim: 96, vDim: 40, queries: 70, rows: 530),
      RowsShape(qkDim: 33, vDim: 33, queries: 33, rows: 31),
    ]
    for input in ElementFormat.inputs {
      for (index, shape) in shapes.enumerated() {
        let problem = RowsProblem(
          KernelCase(isa: Int32(MLA_FAMILY_AMX), format: input), of: amxTable, shape,
          seed: UInt64(index))
        let bits = problem.run().bits
        XCTAssertEqual(problem.run(garbage: 0x3C, movesRows: true).bits, bits, "\(input), \(index)")
        print("bits rows \(input.name) \(index): \(Self.digest(bits))")
      }
    }
  }

  func testIndexScores() {
    for (index, (keys, heads, dim)) in [(256, 64, 128), (70, 33, 64), (31, 1, 33)].enumerated() {
      var random = SplitMix64(seed: UInt64(index))
      let problem = IndexProblem(
        KernelCase(isa: Int32(MLA_FAMILY_AMX), format: .bfloat16), of: amxTable, &random,
        keys: keys, heads: heads, dim: dim)
      let bits = problem.run(garbage: 0xFF).map(\.bitPattern)
      XCTAssertEqual(problem.run(garbage: 0x3C).map(\.bitPattern), bits, "\(problem)")
      print("bits index scores \(index): \(Self.digest(bits))")
    }
  }

  /// Of outputs and lse, from tensors of the case's own.
  private static func digest(
    _ attention: AttentionCase, tile: Int? = nil, around: (() -> Void) -> Void = { $0() }
  ) -> String {
    let result = AMXKernel(attention.input).run(
      attention, AttentionTensors(attention), tile: tile, around: around)
    return digest(result.out.bits + result.lse.map(\.bitPattern))
  }

  /// FNV-1a.
  private static func digest(_ elements: [some FixedWidthInteger]) -> String {
    let hash = elements.reduce(0xcbf2_9ce4_8422_2325 as UInt64) {
      ($0 ^ UInt64(truncatingIfNeeded: $1)) &* 0x100_0000_01b3
    }
    return String(hash, radix: 16)
  }
}
