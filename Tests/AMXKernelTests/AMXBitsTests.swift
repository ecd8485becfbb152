import MLAKernelABI
import MLAKernelsAMX
import MLATestSupport
import SoftwareAMX
import XCTest

/// Prints a number for the bits of each result. The same program prints the same
/// numbers on any CPU and under the model: `make test-amx` compares them.
final class AMXBitsTests: XCTestCase {
  override func setUpWithError() throws { try requireAMX() }

  func testAttention() {
    let cases = [
      AttentionCase(queries: 64, keys: 600, causalOffset: 536, deviation: 3),
      AttentionCase(qkDim: 256, vDim: 256, queries: 33, keys: 520, causalOffset: 487, deviation: 8),
      AttentionCase(qkDim: 33, vDim: 17, queries: 70, keys: 90, deviation: 0.1, format: .float32),
      AttentionCase(input: .float16, queries: 45, keys: 600, causalOffset: 555, deviation: 2),
    ]
    for (index, attention) in cases.enumerated() {
      let tensors = AttentionTensors(attention)
      let results = [nil, 32].map { tile in
        let result = AMXKernel(attention.input).run(attention, tensors, tile: tile)
        return digest(result.out.bits + result.lse.map(\.bitPattern))
      }
      XCTAssertEqual(results[0], results[1], "attention \(index)")
      print("bits attention \(index): \(results[0])")
    }
  }

  func testProjection() {
    var table = mla_kernel_table()
    fillAMXKernels(&table)
    for seed: UInt64 in 0..<3 {
      var random = SplitMix64(seed: seed)
      let problem = BlockProjection(table.bf16, table.bf16_projection, .bfloat16, &random)
      let block = problem.fused()
      XCTAssertEqual(digest(block), digest(problem.byWayOfRows()), "\(problem)")
      print("bits projection \(seed): \(digest(block))")
    }
  }

  /// FNV-1a.
  private func digest(_ elements: [some FixedWidthInteger]) -> String {
    let hash = elements.reduce(0xcbf2_9ce4_8422_2325 as UInt64) {
      ($0 ^ UInt64(truncatingIfNeeded: $1)) &* 0x100_0000_01b3
    }
    return String(hash, radix: 16)
  }
}
