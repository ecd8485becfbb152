import MLAKernelABI
import MLAKernelsAVX512
import MLAKernelsAVX512BF16
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

  /// What a raised reference makes of probabilities is a matter of their exponents,
  /// in one pass over a block as in many.
  func testNoOrderOfScoresCostsMuchMoreThanRandomOnes() {
    check(AttentionCase(queries: 64, keys: 1024), beyond: 0.8)
    check(AttentionCase(queries: 32, keys: 512), beyond: 0.72)
    check(AttentionCase(input: .float16, queries: 32, keys: 512), beyond: 0.85)
  }

  /// The call on random scores keeps the tile unit multiplying for more than
  /// `fraction` of the time; others take at most 1.13 times as long.
  private func check(_ attention: AttentionCase, beyond fraction: Double) {
    let what = "\(attention.input.name), \(attention.queries) queries, \(attention.keys) keys"
    let random = cost(attention, .random)
    let multiplying = Double(random.products) * 16 / random.cycles
    XCTAssertGreaterThan(multiplying, fraction, what)
    print("\(what): \(random.cycles) cycles, \(multiplying) of the tile unit's rate")
    for scores in Scores.allCases where scores != .random {
      let times = cost(attention, scores).cycles / random.cycles
      XCTAssertLessThanOrEqual(times, 1.13, "\(what), \(scores)")
      print("\(what), \(scores): \(times) of random scores' cost")
    }
  }

  /// Products of parts are several times those of bf16, and hide vector work all the
  /// better.
  func testNumbersInParts() {
    func cost(_ input: ElementFormat) -> core_model_result {
      self.cost(AttentionCase(input: input, queries: 64, keys: 1024), .random)
    }
    let whole = cost(.bfloat16)
    for (input, most) in [(ElementFormat.float16, 3.4), (.float32, 5.6)] {
      let parts = cost(input)
      let times = parts.cycles / whole.cycles
      XCTAssertLessThan(times, most, input.name)
      XCTAssertGreaterThan(Double(parts.products) * 16 / parts.cycles, 0.9, input.name)
      print("\(input.name): \(parts.cycles) cycles, \(times) times bf16's")
    }
  }

  /// Six products on tiles for what fp32 multiplications do at once elsewhere.
  func testFloat32AgainstAVX512() {
    let attention = AttentionCase(input: .float32, queries: 96, keys: 512)
    let tensors = AttentionTensors(attention)
    let cycles = [AMXKernel(entry: avx512Kernels().fp32), AMXKernel(.float32)].map { kernel in
      var cycles = 0.0
      _ = kernel.run(attention, tensors) { attend in
        core_model_begin()
        attend()
        cycles += core_model_end().cycles
      }
      return cycles
    }
    XCTAssertGreaterThan(cycles[0] / cycles[1], 3)
    print("fp32: \(cycles[0]) cycles on AVX-512, \(cycles[0] / cycles[1]) times those on tiles")
  }

  private enum Scores: CaseIterable { case random, allEqual, far, growing, outlier, latestOutlier }

  private func cost(_ attention: AttentionCase, _ scores: Scores) -> core_model_result {
    var attention = attention
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
      // Near a block's end, when most of its probabilities are there.
      case .latestOutlier: if row % 512 == 500 { tensors.k[row, 0, 0] = Double(row) * 10 }
      }
    }
    var result = core_model_result()
    _ = AMXKernel(attention.input).run(attention, tensors) { attend in
      core_model_begin()
      attend()
      result = core_model_end()
    }
    return result
  }

  /// A token's heads and keys that it has selected, DeepSeek's dimensions, against what vectors
  /// take for as much: pairs of bf16, whose instruction counts as one of fp32's here, or fp32.
  /// So few rows bear the packing of queries alone, which others share; few heads all of that of
  /// rows, in three parts of fp32.
  func testRowsAgainstVectors() {
    let vectors = avx512BF16Kernels(over: avx512Kernels())
    for (input, heads, atLeast) in [
      (ElementFormat.bfloat16, 64, 5.5), (.bfloat16, 16, 3), (.float16, 16, 2), (.float32, 16, 1.2),
    ] {
      let onTiles = rowsCost(amxTable, input, heads, rows: 128)
      let times = rowsCost(vectors, input, heads, rows: 32).cycles * 4 / onTiles.cycles
      let multiplying = Double(onTiles.products) * 16 / onTiles.cycles
      XCTAssertGreaterThan(times, atLeast, "\(input.name), \(heads) heads")
      print(
        """
        rows, \(input.name), \(heads) heads: \(onTiles.cycles / 128) cycles a row, \(multiplying) of \
        the tile unit's rate; on vectors \(times) times as many
        """)
    }
  }

  /// Of so many rows, in as many calls as that takes.
  private func rowsCost(
    _ table: mla_kernel_table, _ input: ElementFormat, _ heads: Int, rows: Int
  ) -> core_model_result {
    let problem = RowsProblem(
      KernelCase(isa: Int32(MLA_FAMILY_AMX), format: input), of: table,
      RowsShape(qkDim: 576, vDim: 512, queries: heads, rows: rows), seed: 1, wholeCalls: true)
    return sum { around in _ = problem.run(around: around) }
  }

  /// 64 heads of 128 dims, as DeepSeek's indexer has them: a block of products is four steps
  /// deep, so that the tile unit waits for the last ones and stores them a fifth of the time.
  func testIndexScoresAgainstVectors() {
    let vectors = avx512BF16Kernels(over: avx512Kernels())
    let costs = [vectors, amxTable].map { table in
      var random = SplitMix64(seed: 1)
      let kernelCase = KernelCase(isa: Int32(MLA_FAMILY_AMX), format: .bfloat16)
      let keys = Int(kernelCase.index(of: table).key_block)
      let problem = IndexProblem(kernelCase, of: table, &random, keys: keys, heads: 64, dim: 128)
      return (keys: Double(keys), sum { around in _ = problem.run(garbage: 0, around: around) })
    }
    let (vector, tile) = (costs[0].1.cycles / costs[0].keys, costs[1].1.cycles / costs[1].keys)
    let multiplying = Double(costs[1].1.products) * 16 / costs[1].1.cycles
    XCTAssertGreaterThan(vector / tile, 4)
    XCTAssertGreaterThan(multiplying, 0.6)
    print(
      """
      index scores: \(tile) cycles a key, \(multiplying) of the tile unit's rate; on vectors \
      \(vector / tile) times as many
      """)
  }

  /// What all calls that `run` makes by way of its argument take.
  private func sum(_ run: ((() -> Void) -> Void) -> Void) -> core_model_result {
    var all = core_model_result()
    run { call in
      core_model_begin()
      call()
      let one = core_model_end()
      all.cycles += one.cycles
      all.products += one.products
    }
    return all
  }

  /// The up-projection of a block of 512 keys, DeepSeek's dimensions.
  func testUpProjection() {
    checkUpProjection(amxTable.bf16, amxTable.bf16_projection, .bfloat16, products: 1)
    checkUpProjection(amxTable.fp16, amxTable.fp16_projection, .float16, products: 4)
  }

  private func checkUpProjection(
    _ attention: mla_attention_kernel, _ projection: mla_projection_kernel,
    _ format: ElementFormat, products parts: UInt64
  ) {
    var random = SplitMix64(seed: 1)
    let problem = BlockProjection(
      attention, projection, format, keys: 512, nope: 128, rope: 64, v: 128, rank: 512, &random)
    var result = core_model_result()
    _ = problem.fused { project in
      core_model_begin()
      project()
      result = core_model_end()
    }
    let perProduct = 16 * 16 * 32
    let steps = UInt64(512 * 256 * 512 / perProduct / 4)
    let products = steps * 4 * parts
    XCTAssertEqual(result.products, products)
    // Two left and two right operands for four products, two of them anew for each
    // four more; sums stored once.
    XCTAssertEqual(result.tile_loads, steps * (2 + 2 * parts))
    XCTAssertEqual(result.tile_stores, steps / 4)
    // Vector work must fit beside products of 16 cycles.
    XCTAssertLessThan(result.vector_arithmetic, 4 * products)
    let fraction = Double(products) * 16 / result.cycles
    XCTAssertGreaterThan(fraction, 0.8)
    print("up-projection of \(format.name): \(fraction) of the tile unit's rate")
  }
}
