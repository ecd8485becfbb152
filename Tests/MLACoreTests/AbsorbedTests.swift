import CMLAPrefill
import MLATestSupport
import XCTest

@testable import MLACore

/// Attention in latent space: against float64, the up-projected form and itself.
final class AbsorbedTests: XCTestCase {
  override func tearDownWithError() throws {
    try HostSettings.setThreads(0)
  }

  /// Tokens around the ends of chunks, keys around the ends of ranges and packs.
  func testChunksAndRangesAgainstFloat64() throws {
    var random = SplitMix64(seed: 61)
    for (numHeads, lengths) in [(1, [1, 64, 65, 130]), (5, [51, 52, 2]), (16, [1, 16, 17, 33])] {
      for format in [ElementFormat.bfloat16, .float32] {
        let model = LayerModel(format, numHeads: numHeads, dims: LayerModel.allDims[5], &random)
        // So small are the dimensions that nothing but this limits a pack.
        let pack = SharedKeyShape.mostKeysPerPack
        let contexts = lengths.map { _ in
          random.pick([0, pack - 1, pack, pack + 1, 2 * pack - 2, random.int(1...1500)])
        }
        let sequences = zip(contexts, lengths).map { model.sequence($0 + $1, &random) }
        let step = LayerStep(model, sequences, contexts: contexts, blockSize: 24, &random)
        try check(
          step, [model.makeLayer(algorithm: MLA_LAYER_ALGORITHM_ABSORBED)],
          "\(format.name), \(numHeads) heads, \(lengths) on \(contexts)")
      }
    }
  }

  func testLogSumExpAgreesWithTheUpProjectedForm() throws {
    var random = SplitMix64(seed: 62)
    for dims in LayerModel.allDims.prefix(5) {
      let model = LayerModel(.bfloat16, numHeads: 2, dims: dims, &random)
      let step = LayerStep(
        model, [model.sequence(1503, &random)], contexts: [1500], blockSize: 64, &random)
      let (up, absorbed) = (
        try step.run(model.makeLayer(algorithm: MLA_LAYER_ALGORITHM_UP_PROJECTED)),
        try step.run(model.makeLayer(algorithm: MLA_LAYER_ALGORITHM_ABSORBED))
      )
      XCTAssertLessThanOrEqual(maxDifference(absorbed.lse.values, up.lse.values), 2e-3, "\(dims)")
      XCTAssertLessThanOrEqual(relativeL2(absorbed.out.values, up.out.values), 7e-3, "\(dims)")
      XCTAssertNotEqual(absorbed.out.bits, up.out.bits, "one form ran twice: \(dims)")
    }
  }

  /// Each request of a mixed batch has the bits of the form that it takes, alone.
  func testAutomaticChoiceMixesForms() throws {
    var random = SplitMix64(seed: 63)
    let model = LayerModel(.bfloat16, numHeads: 4, dims: LayerModel.allDims[3], &random)
    let contexts = [900, 0, 400, 70, 64]
    let lengths = [1, 300, 3, 400, 1]
    let sequences = zip(contexts, lengths).map { model.sequence($0 + $1, &random) }
    let step = LayerStep(model, sequences, contexts: contexts, &random)
    let (auto, up, absorbed) = (
      try step.run(model.makeLayer()),
      try step.run(model.makeLayer(algorithm: MLA_LAYER_ALGORITHM_UP_PROJECTED)),
      try step.run(model.makeLayer(algorithm: MLA_LAYER_ALGORITHM_ABSORBED))
    )
    for (i, takesAbsorbed) in [true, false, true, false, false].enumerated() {
      let row = model.numHeads * model.vDim
      let rows = Int(step.queryStarts[i]) * row..<Int(step.queryStarts[i + 1]) * row
      let expected = takesAbsorbed ? absorbed : up
      XCTAssertEqual(Array(auto.out.bits[rows]), Array(expected.out.bits[rows]), "request \(i)")
    }
  }

  func testSameBitsForAnyThreadsBatchAndBound() throws {
    var random = SplitMix64(seed: 64)
    let model = LayerModel(.bfloat16, numHeads: 6, dims: LayerModel.allDims[4], &random)
    try checkSameBits(model, bound: 5 << 20, "absorbed", &random) {
      try model.makeLayer(bound: $0, algorithm: MLA_LAYER_ALGORITHM_ABSORBED)
    }
  }

  func testWorkspaceOfExactlyTheSizeAsked() throws {
    var random = SplitMix64(seed: 65)
    // With dimensions of both kinds, and rotary ones alone.
    for (format, dims) in [(ElementFormat.bfloat16, 5), (.float32, 5), (.bfloat16, 6)] {
      let model = LayerModel(format, numHeads: 3, dims: LayerModel.allDims[dims], &random)
      let sequences = [1150, 40].map { model.sequence($0, &random) }
      let step = LayerStep(model, sequences, contexts: [1100, 0], &random)
      let layer = try model.makeLayer(algorithm: MLA_LAYER_ALGORITHM_ABSORBED)
      try step.runsInExactlyTheWorkspaceAsked(by: layer)
    }
  }

  func testUnknownAlgorithmsAreRefused() throws {
    var random = SplitMix64(seed: 66)
    let model = LayerModel(.bfloat16, numHeads: 1, dims: LayerModel.allDims[5], &random)
    for algorithm in [-1, 3, Int(Int32.max)] {
      XCTAssertThrowsError(try model.makeLayer(algorithm: algorithm)) { error in
        XCTAssertTrue("\(error)".contains("config.algorithm = \(algorithm): must be"), "\(error)")
      }
    }
  }
}
