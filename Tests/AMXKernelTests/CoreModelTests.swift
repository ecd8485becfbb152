import MLAKernelABI
import MLAKernelsAMX
import MLATestSupport
import SoftwareAMX
import XCTest

/// What kernels would cost on a core with tiles, by the model of one: ratios of
/// estimates, where no such core is at hand to measure.
final class CoreModelTests: XCTestCase {
  override func setUpWithError() throws {
    try requireAMX()
    try XCTSkipIf(software_amx_install() == SOFTWARE_AMX_HARDWARE, "measure it there")
  }

  /// Whatever the scores, a block's reference is raised once at most.
  func testNoOrderOfScoresCostsMuchMoreThanRandomOnes() {
    let random = cost(.random)
    XCTAssertGreaterThan(Double(random.products) * 16 / random.cycles, 0.75)
    for scores in Scores.allCases where scores != .random {
      let ratio = cost(scores).cycles / random.cycles
      XCTAssertLessThanOrEqual(ratio, 1.3, "\(scores)")
      print("\(scores): \(ratio) of random scores' cost")
    }
  }

  private enum Scores: CaseIterable { case random, allEqual, far, growing, outlier, latestOutlier }

  private func cost(_ scores: Scores) -> core_model_result {
    var attention = AttentionCase(queries: 64, keys: 1024)
    if scores == .far { attention.deviation = 1e4 }
    let tensors = AttentionTensors(attention)
    for row in 0..<attention.queries { tensors.q[row, 0, 0] = 1 }
    for row in 0..<attention.keys {
      switch scores {
      case .random, .far: break
      case .allEqual: for d in 0..<attention.qkDim { tensors.k[row, 0, d] = 0 }
      // Each group's largest is far above all before it.
      case .growing: tensors.k[row, 0, 0] = Double(row / 32) * 1000
      case .outlier: if row == 300 { tensors.k[row, 0, 0] = 4000 }
      // Once a block's first scores have been overwritten.
      case .latestOutlier: if row % 512 == 500 { tensors.k[row, 0, 0] = Double(row) * 10 }
      }
    }
    var result = core_model_result()
    _ = AMXKernel().run(attention, tensors) { attend in
      core_model_begin()
      attend()
      result = core_model_end()
    }
    return result
  }

  /// The up-projection of a block of 512 keys, DeepSeek's dimensions.
  func testUpProjection() {
    var table = mla_kernel_table()
    fillAMXKernels(&table)
    var random = SplitMix64(seed: 1)
    let problem = BlockProjection(
      table.bf16, table.bf16_projection, .bfloat16, keys: 512, nope: 128, rope: 64, v: 128,
      rank: 512, &random)
    var result = core_model_result()
    _ = problem.fused { project in
      core_model_begin()
      project()
      result = core_model_end()
    }
    let perProduct = 16 * 16 * 32
    let products = UInt64(512 * 256 * 512 / perProduct)
    XCTAssertEqual(result.products, products)
    // Two left and two right operands for four products, sums stored once.
    XCTAssertEqual(result.tile_loads, products)
    XCTAssertEqual(result.tile_stores, products / 16)
    // Vector work must fit beside products of 16 cycles.
    XCTAssertLessThan(result.vector_arithmetic, 4 * products)
    let fraction = Double(products) * 16 / result.cycles
    XCTAssertGreaterThan(fraction, 0.8)
    print("up-projection: \(fraction) of the tile unit's rate")
  }
}
