import CMLAPrefill
import MLATestSupport
import XCTest

@testable import MLACore

/// A layer on a registered backend: its own run calls on whole keys and values,
/// context in chunks, and the numbers of the path that needs neither.
final class LayerRegisteredTests: XCTestCase {
  private let member = "FLASH_ATTN"

  override func tearDownWithError() throws {
    try Registry.shared.override(member, nil)
    try HostSettings.setThreads(0)
  }

  func testAgreesWithFloat64AndTheFusedPath() throws {
    var random = SplitMix64(seed: 61)
    for dims in LayerModel.allDims {
      for format in ElementFormat.inputs {
        let model = LayerModel(format, numHeads: 3, dims: dims, &random)
        let step = mixedStep(model, blockSize: random.pick([1, 3, 16, 64]), &random)
        let bound = Int64(try smallestBound(step))
        for bound in [0, bound] {
          let (backend, layer) = try makeLayer(model, bound: bound)
          try check(step, layer, backend, "\(format.name) \(dims) bound \(bound)")
          XCTAssertEqual(backend.current.newTokenRuns, 1)
          XCTAssertEqual(backend.current.chunkRows.reduce(0, +), 150 + 63 + 64 + 700)
          if bound > 0 { XCTAssertGreaterThan(backend.current.chunkRows.count, 2) }
        }
      }
    }
  }

  func testEveryCacheFormat() throws {
    var random = SplitMix64(seed: 62)
    for format in ElementFormat.inputs {
      for cache in CacheModel.all {
        let dims = LayerModel.allDims[cache.code == 0 ? 4 : 0]
        let model = LayerModel(format, numHeads: 5, dims: dims, &random)
        let step = mixedStep(model, cache: cache, &random)
        let (backend, layer) = try makeLayer(model, cache: cache)
        try check(step, layer, backend, "\(format.name), cache \(cache)")
      }
    }
  }

  /// Nobody with context: one run writes what the caller wants, where it wants it.
  func testFreshBatchIsOneRun() throws {
    var random = SplitMix64(seed: 63)
    let model = LayerModel(.bfloat16, numHeads: 2, dims: LayerModel.allDims[3], &random)
    let sequences = [70, 1, 33].map { model.sequence($0, &random) }
    let step = LayerStep(model, sequences, contexts: [0, 0, 0], &random)
    let (backend, layer) = try makeLayer(model)
    try check(step, layer, backend, "fresh")
    XCTAssertEqual(backend.current.batches, [[0, 70, 71, 104]])
    XCTAssertEqual(backend.current.chunkRows, [])
  }

  func testWithoutLSE() throws {
    var random = SplitMix64(seed: 64)
    let model = LayerModel(.bfloat16, numHeads: 2, dims: LayerModel.allDims[4], &random)
    for context in [0, 90] {
      let step = LayerStep(model, [model.sequence(100, &random)], contexts: [context], &random)
      let (_, layer) = try makeLayer(model)
      let expected = try step.run(layer)
      let result = try step.run(layer) { $0.lse = nil }
      XCTAssertEqual(result.out.bits, expected.out.bits)
      XCTAssertTrue(result.lse.bits.allSatisfy { $0 == ElementFormat.float32.poison })
    }
  }

  /// A backend that can writes fp8 itself where one run is all; else what has been
  /// merged is quantized, once.
  func testQuantizedOutput() throws {
    var random = SplitMix64(seed: 72)
    for format in ElementFormat.inputs {
      let model = LayerModel(format, numHeads: 2, dims: LayerModel.allDims[3], &random)
      let fresh = LayerStep(
        model, [70, 1].map { model.sequence($0, &random) }, contexts: [0, 0], &random)
      for (step, quantizes) in [
        (mixedStep(model, &random), true), (mixedStep(model, &random), false), (fresh, true),
        (fresh, false),
      ] {
        let backend = DelegatingBackend(member, quantizes: quantizes)
        let (_, layer) = try makeLayer(model, backend)
        let result = try step.run(layer, quantizedBy: 0.013)
        // A run's result is the layer's dtype where it is converted later.
        let isDirect = step === fresh && quantizes
        let exact =
          step === fresh && !isDirect
          ? try step.run(layer) : try step.run(layer, quantizedBy: nil)
        XCTAssertEqual(result.out.bits, float8Bits(of: exact.out, times: 1 / 0.013), format.name)
        XCTAssertEqual(result.lse.bits, exact.lse.bits)
        XCTAssertTrue(result.out.surroundingsAreIntact)
        XCTAssertEqual(backend.current.complaints, [])
        XCTAssertEqual(backend.current.quantizedRuns, isDirect ? 1 : 0)
      }
    }
  }

  /// The backend sees no request without new tokens, and no batch without any.
  func testNothingToDoIsNotHandedOn() throws {
    var random = SplitMix64(seed: 65)
    let model = LayerModel(.bfloat16, numHeads: 2, dims: LayerModel.allDims[4], &random)
    let (backend, layer) = try makeLayer(model)
    _ = try LayerStep(model, [], contexts: [], &random).run(layer)
    let idle = LayerStep(model, [model.sequence(20, &random)], contexts: [20], &random)
    _ = try idle.run(layer)
    XCTAssertEqual(try idle.workspaceSize(layer), 0)
    XCTAssertEqual(backend.current.batches, [])
    let sequences = [20, 21, 9].map { model.sequence($0, &random) }
    let step = LayerStep(model, sequences, contexts: [20, 20, 0], &random)
    try check(step, layer, backend, "one idle")
    XCTAssertEqual(backend.current.batches, [[0, 1, 10]])
    XCTAssertEqual(backend.current.chunkRows, [20])
  }

  func testFailuresArriveAndNothingIsWritten() throws {
    var random = SplitMix64(seed: 66)
    let model = LayerModel(.bfloat16, numHeads: 2, dims: LayerModel.allDims[4], &random)
    let step = mixedStep(model, &random)
    let bound = Int64(try smallestBound(step))
    for failingRun in 0..<3 {
      let (backend, layer) = try makeLayer(
        model, DelegatingBackend(member, failingRun: failingRun), bound: bound)
      let result = step.makeResult()
      let error = mlaError {
        try step.withArguments(out: result.out, lse: result.lse) { try layer.forward(&$0) }
      }
      XCTAssertEqual(
        error, MLAError(Int(DelegatingBackend.failure), DelegatingBackend.failureMessage))
      XCTAssertTrue(result.out.bits.allSatisfy { $0 == result.out.format.poison })
      XCTAssertTrue(result.lse.bits.allSatisfy { $0 == result.lse.format.poison })
      XCTAssertThrowsError(try step.run(layer))
      XCTAssertEqual(backend.current.instances, 1, "what has failed serves the next call")
    }
  }

  func testRefusalComesWithTheLayer() throws {
    var random = SplitMix64(seed: 67)
    let model = LayerModel(.bfloat16, numHeads: 2, dims: LayerModel.allDims[4], &random)
    let (backend, first) = try makeLayer(model)
    XCTAssertEqual(backend.current.instances, 1)
    withExtendedLifetime(first) {}
    XCTAssertEqual(
      mlaError { try self.makeLayer(model, DelegatingBackend("NOBODY")) }?.status,
      mla_status(MLA_ERROR_NOT_REGISTERED))
  }

  func testWorkspaceAndBoundHold() throws {
    var random = SplitMix64(seed: 68)
    let model = LayerModel(.bfloat16, numHeads: 6, dims: LayerModel.allDims[4], &random)
    let step = mixedStep(model, &random)
    let least = try smallestBound(step)
    for bound in [0, least, least + 100_000, 8 << 20] {
      let (backend, layer) = try makeLayer(model, bound: Int64(bound))
      if bound > 0 { XCTAssertLessThanOrEqual(try step.workspaceSize(layer), bound) }
      try step.runsInExactlyTheWorkspaceAsked(by: layer)
      XCTAssertEqual(backend.current.complaints, [])
    }
    let (_, tooLittle) = try makeLayer(model, bound: Int64(least - 1))
    XCTAssertThrowsError(try step.run(tooLittle))
  }

  /// A size that no memory has is refused, not computed with.
  func testSizesBeyondMemory() throws {
    var random = SplitMix64(seed: 69)
    let model = LayerModel(.bfloat16, numHeads: 6, dims: LayerModel.allDims[4], &random)
    let (_, layer) = try makeLayer(model)
    let step = mixedStep(model, &random)
    step.contextLens[1] = .max
    XCTAssertGreaterThan(try step.workspaceSize(layer), 0)
    for i in 1..<step.queryStarts.count { step.queryStarts[i] = .max }
    let size = try step.workspaceSize(layer)
    XCTAssertGreaterThan(size, Int(Int32.max) * 6 * 160 * 2)
    var table = DelegatingBackend(member).vtable
    table.workspace_size = { _, _ in .max }
    try Registry.shared.override(member, request(vtable: table))
    let greedy = try model.makeLayer(backend: member)
    XCTAssertEqual(
      mlaError { try step.workspaceSize(greedy) }?.status, mla_status(MLA_ERROR_OUT_OF_MEMORY))
  }

  /// Each call under way has an object of its own: a batch is never another's.
  func testCallWithinACall() throws {
    var random = SplitMix64(seed: 70)
    let model = LayerModel(.bfloat16, numHeads: 2, dims: LayerModel.allDims[4], &random)
    let (backend, layer) = try makeLayer(model)
    let (outer, inner) = (twoSteps(model, &random)[0], twoSteps(model, &random)[1])
    let expected = try [outer, inner].map { try $0.run(layer).out.bits }
    XCTAssertEqual(backend.current.instances, 1)
    let innerBits = Guarded<[UInt32]>([])
    nonisolated(unsafe) let shared = inner
    backend.interruption.withLock {
      $0 = {
        let bits = (try? shared.run(layer).out.bits) ?? []
        innerBits.withLock { $0 = bits }
      }
    }
    XCTAssertEqual(try outer.run(layer).out.bits, expected[0])
    XCTAssertEqual(innerBits.withLock { $0 }, expected[1])
    XCTAssertEqual(backend.current.instances, 2)
  }

  func testOneLayerOnSeveralThreads() throws {
    var random = SplitMix64(seed: 71)
    let model = LayerModel(.bfloat16, numHeads: 2, dims: LayerModel.allDims[4], &random)
    let (backend, layer) = try makeLayer(model)
    nonisolated(unsafe) let steps = twoSteps(model, &random)
    let expected = try steps.map { try $0.run(layer).out.bits }
    let failures = Guarded(0)
    let threads = steps.indices.map { i in
      Thread {
        for _ in 0..<20 {
          let bits = try? steps[i].run(layer).out.bits
          if bits != expected[i] { failures.withLock { $0 += 1 } }
        }
      }
    }
    threads.forEach { $0.start() }
    while threads.contains(where: { !$0.isFinished }) { Thread.sleep(forTimeInterval: 0.005) }
    XCTAssertEqual(failures.withLock { $0 }, 0)
    XCTAssertLessThanOrEqual(backend.current.instances, steps.count)
  }

  private func twoSteps(_ model: LayerModel, _ random: inout SplitMix64) -> [LayerStep] {
    [(200, 150), (90, 0)].map { length, context in
      LayerStep(model, [model.sequence(length, &random)], contexts: [context], &random)
    }
  }

  /// Fresh requests, requests with context, idle ones, one new token.
  private func mixedStep(
    _ model: LayerModel, cache: CacheModel? = nil, blockSize: Int = 16, _ random: inout SplitMix64
  ) -> LayerStep {
    let contexts = [0, 150, 63, 0, 64, 5, 700]
    let sequences = zip(contexts, [31, 1, 65, 0, 17, 0, 40]).map {
      model.sequence($0 + $1, &random)
    }
    return LayerStep(
      model, sequences, contexts: contexts, cache: cache, blockSize: blockSize, &random)
  }

  /// What the refusal of too small a bound says is needed.
  private func smallestBound(_ step: LayerStep) throws -> Int {
    let (_, layer) = try makeLayer(step.model, bound: 1)
    let message = mlaError { try step.workspaceSize(layer) }?.message ?? ""
    XCTAssertTrue(message.hasPrefix("config.workspace_bound = 1: this batch needs "), message)
    return try XCTUnwrap(message.split(separator: " ").compactMap { Int($0) }.max())
  }

  private func makeLayer(
    _ model: LayerModel, _ backend: DelegatingBackend? = nil, cache: CacheModel? = nil,
    bound: Int64 = 0
  ) throws -> (DelegatingBackend, MLALayer) {
    let backend = backend ?? DelegatingBackend(member)
    try Registry.shared.override(member, request(vtable: backend.vtable))
    return (backend, try model.makeLayer(backend: member, cache: cache, bound: bound))
  }

  private func check(
    _ step: LayerStep, _ layer: MLALayer, _ backend: DelegatingBackend, _ message: String
  ) throws {
    let result = try step.run(layer)
    XCTAssertEqual(backend.current.complaints, [], message)
    try Registry.shared.override(member, nil)
    let fused = try step.run(
      step.model.makeLayer(
        backend: member, cache: step.cache.layout.model,
        // A registered backend's keys are up-projected, too.
        algorithm: MLA_LAYER_ALGORITHM_UP_PROJECTED))
    let reference = step.reference()
    // The fused path's bounds, and a rounding of partial results.
    let (ownBound, fusedBound) =
      switch step.model.format {
      case .bfloat16: (8e-3, 4e-3)
      case .float16: (2e-3, 1e-3)
      default: (5e-5, 2e-5)
      }
    let toReference = relativeL2(result.out.values, reference.out)
    let toFused = relativeL2(result.out.values, fused.out.values)
    XCTAssertTrue(toReference <= ownBound, "\(message): out \(toReference)")
    XCTAssertTrue(toFused <= fusedBound, "\(message): out \(toFused) from fused")
    let lse = maxDifference(result.lse.values, fused.lse.values)
    XCTAssertTrue(lse <= 2e-4, "\(message): lse \(lse) from fused")
    XCTAssertTrue(result.out.surroundingsAreIntact, message)
    XCTAssertTrue(result.lse.surroundingsAreIntact, message)
  }
}
