import CMLAPrefill
import MLACore
import MLATestSupport
import XCTest

/// Runs a step on layers of one model and compares the results with float64, and
/// what lies around them with what lay there before.
///
/// - Parameter fewKeys: how much farther off an lse may be where many rows see a key or two.
func check(_ step: LayerStep, _ layers: [MLALayer], _ message: String, fewKeys: Double = 1) throws {
  let reference = step.reference()
  // Keys are rounded to the layer's dtype: a query that sees few of them has
  // an lse that is off by as much as its largest score is.
  let bounds: (out: Double, lse: Double) =
    switch step.model.format {
    case .bfloat16: (7e-3, 6e-3)
    case .float16: (2e-3, 2e-3)
    default: (5e-5, 2e-4)
    }
  for (i, layer) in layers.enumerated() {
    let result = try step.run(layer)
    let out = relativeL2(result.out.values, reference.out)
    let lse = maxDifference(result.lse.values, reference.lse)
    XCTAssertTrue(out <= bounds.out, "\(message), layer \(i): out \(out)")
    XCTAssertTrue(lse <= fewKeys * bounds.lse, "\(message), layer \(i): lse \(lse)")
    XCTAssertTrue(result.out.surroundingsAreIntact, message)
    XCTAssertTrue(result.lse.surroundingsAreIntact, message)
  }
}

/// Runs a batch on layers of one model that differ in their bound: the bits of a
/// request depend on nothing but the request.
///
/// - Parameter bound: of memory, so small that it forces another order of work.
func checkSameBits(
  _ model: LayerModel, bound: Int64, _ message: String, _ random: inout SplitMix64,
  _ makeLayer: (_ bound: Int64) throws -> MLALayer
) throws {
  let contexts = [0, 1300, 64, 2500, 1]
  let sequences = zip(contexts, [90, 40, 1, 3, 129]).map { model.sequence($0 + $1, &random) }
  let step = LayerStep(model, sequences, contexts: contexts, &random)
  let layer = try makeLayer(0)
  try HostSettings.setThreads(1)
  let expected = try step.run(layer)
  for bound in [0, bound, 1 << 30] {
    let bounded = try makeLayer(bound)
    for threads in [1, 2, 3, 5] as [Int32] {
      try HostSettings.setThreads(threads)
      let what = "\(message), \(threads) threads, bound \(bound)"
      if bound > 0 {
        XCTAssertLessThanOrEqual(try step.workspaceSize(bounded), Int(bound), what)
      }
      let result = try step.run(bounded)
      XCTAssertEqual(result.out.bits, expected.out.bits, what)
      XCTAssertEqual(result.lse.bits, expected.lse.bits, what)
    }
  }
  for (i, sequence) in sequences.enumerated() {
    let alone = LayerStep(model, [sequence], contexts: [contexts[i]], blockSize: 5, &random)
    let result = try alone.run(layer)
    let row = model.numHeads * model.vDim
    let first = Int(step.queryStarts[i])
    XCTAssertEqual(
      result.out.bits, Array(expected.out.bits[first * row..<(first + alone.q.rows) * row]),
      "\(message), request \(i)")
  }
}

extension LayerStep {
  /// A workspace of the size that a layer asks for is enough, whatever is in it, one byte less
  /// is not.
  func runsInExactlyTheWorkspaceAsked(by layer: MLALayer) throws {
    let size = try workspaceSize(layer)
    let memory = GuardedMemory(byteCount: size, flush: .end)
    memory.fill(byte: 0xFF)
    let workspace = UnsafeMutableRawBufferPointer(start: memory.base, count: size)
    let result = try run(layer, workspace: workspace)
    XCTAssertEqual(result.out.bits, try run(layer).out.bits)
    let short = UnsafeMutableRawBufferPointer(rebasing: workspace.dropLast())
    XCTAssertEqual(
      mlaError { try self.run(layer, workspace: short) }?.message,
      "workspace_size = \(size - 1): this run needs \(size) bytes, see mla_layer_workspace_size")
  }

  /// A forward call with changed arguments fails by this text and writes nothing.
  func isRefused(
    by layer: MLALayer, _ text: String,
    _ change: (inout mla_layer_forward_args) -> Void = { _ in }
  ) {
    let result = makeResult()
    XCTAssertThrowsError(
      try withArguments(out: result.out, lse: result.lse) { args in
        change(&args)
        try layer.forward(&args)
      }, text
    ) { error in
      XCTAssertTrue("\(error)".contains(text), "\(error), not \(text)")
    }
    XCTAssertTrue(result.out.bits.allSatisfy { $0 == result.out.format.poison }, text)
    XCTAssertTrue(result.lse.bits.allSatisfy { $0 == result.lse.format.poison }, text)
  }
}
