import CMLAPrefill
import MLACore
import MLATestSupport
import XCTest

/// How far lse is from that of numbers which are never rounded, and why.
final class LayerErrorTests: XCTestCase {
  /// Half the distance of neighbours, as a part of the smaller one.
  private static let roundoff: [ElementFormat: Double] = [
    .bfloat16: 0x1p-8, .float16: 0x1p-11, .float32: 0x1p-24,
  ]

  /// What is left when the reference rounds keys as the layer does: a few keys
  /// that fall on either side of a tie, for their sums are fp32 here.
  func testRoundingKeysIsWhatMovesLSE() throws {
    var random = SplitMix64(seed: 71)
    for dims in LayerModel.allDims where dims.0 > 0 {
      for format in [ElementFormat.bfloat16, .float16] {
        let model = LayerModel(format, numHeads: 3, dims: dims, &random)
        let step = LayerStep(
          model, [model.sequence(90, &random), model.sequence(3, &random)], contexts: [40, 0],
          &random)
        let layer = try model.makeLayer(algorithm: MLA_LAYER_ALGORITHM_UP_PROJECTED)
        let lse = try step.run(layer).lse.values
        func deviation(from expected: [Double]) -> Double {
          zip(lse, expected).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }.squareRoot()
        }
        let ratio =
          deviation(from: step.reference(roundingKeysTo: format).lse)
          / deviation(from: step.reference().lse)
        XCTAssertLessThanOrEqual(ratio, 0.2, "\(format.name) \(dims)")
      }
    }
  }

  /// The bounds that the header gives.
  func testLSEIsWithinTheDocumentedBounds() throws {
    var random = SplitMix64(seed: 72)
    for format in ElementFormat.inputs {
      for algorithm in [MLA_LAYER_ALGORITHM_UP_PROJECTED, MLA_LAYER_ALGORITHM_ABSORBED] {
        let model = LayerModel(
          format, numHeads: 2, dims: random.pick(LayerModel.allDims), &random)
        let step = LayerStep(model, [model.sequence(40, &random)], contexts: [0], &random)
        let lse = try step.run(model.makeLayer(algorithm: algorithm)).lse.values
        let expected = step.reference().lse
        let roundoff = try XCTUnwrap(Self.roundoff[format])
        let isAbsorbed = algorithm == MLA_LAYER_ALGORITHM_ABSORBED
        for (i, sum) in largestSums(step, isAbsorbed: isAbsorbed).enumerated() {
          // fp32 sums, too, are off by a little.
          let bound = model.scale * sum * roundoff + 1e-5
          XCTAssertLessThanOrEqual(
            abs(lse[i] - expected[i]), bound, "\(format.name), algorithm \(algorithm), \(i)")
        }
      }
    }
  }

  /// For each head and query of a step's one request the largest sum, over the
  /// keys it sees, of magnitudes of the products in which one side is rounded.
  private func largestSums(_ step: LayerStep, isAbsorbed: Bool) -> [Double] {
    let (model, sequence) = (step.model, step.sequences[0])
    return (0..<model.numHeads).flatMap { head in
      let (queries, keys) =
        isAbsorbed
        ? (latentQueries(model, sequence, head), sequence.latents.values)
        : (nopeRows(model, sequence.q.values(head: head)),
          nopeRows(
            model,
            model.keysAndValues(
              head: head, latents: sequence.latents.values, rope: sequence.rope.values
            ).k))
      let dim = isAbsorbed ? model.rank : model.nope
      return (0..<sequence.count).map { query in
        (0...query).map { key in
          (0..<dim).reduce(0.0) { $0 + abs(queries[query * dim + $1] * keys[key * dim + $1]) }
        }.max()!
      }
    }
  }

  private func nopeRows(_ model: LayerModel, _ rows: [Double]) -> [Double] {
    rows.indices.filter { $0 % model.qkDim < model.nope }.map { rows[$0] }
  }

  /// [rows, rank]: queries taken to the latents.
  private func latentQueries(_ model: LayerModel, _ sequence: LayerSequence, _ head: Int)
    -> [Double]
  {
    let weights = model.weights
    let first = head * (model.nope + model.vDim)
    return (0..<sequence.count).flatMap { row in
      (0..<model.rank).map { d in
        (0..<model.nope).reduce(0.0) {
          $0 + sequence.q[row, head, $1] * weights[first + $1, 0, d]
        }
      }
    }
  }
}
