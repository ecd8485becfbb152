import CMLAPrefill
import MLATestSupport
import XCTest

@testable import MLACore

/// New tokens that attend to their context and not to each other.
final class LayerContextOnlyTests: XCTestCase {
  override func tearDownWithError() throws {
    try Registry.shared.override("FLASH_ATTN", nil)
    try HostSettings.setThreads(0)
  }

  func testEveryDimensionAgainstFloat64() throws {
    var random = SplitMix64(seed: 81)
    for dims in LayerModel.allDims {
      for format in ElementFormat.inputs {
        let model = LayerModel(format, numHeads: 3, dims: dims, &random)
        let step = contextStep(model, [random.int(1...99), 0, 1, 65, 7, 0, 300], &random)
        let layers = try LayerModel.algorithms.map { try model.makeLayer(algorithm: $0) }
        try check(step, layers, "\(format.name) \(dims)")
      }
    }
  }

  func testRegisteredBackend() throws {
    var random = SplitMix64(seed: 82)
    let model = LayerModel(.float32, numHeads: 3, dims: LayerModel.allDims[4], &random)
    for contexts in [[90, 0, 1, 65, 7, 0, 300], [0, 0]] {
      let step = contextStep(model, contexts, &random)
      let backend = DelegatingBackend("FLASH_ATTN")
      try Registry.shared.override("FLASH_ATTN", request(vtable: backend.vtable))
      try check(step, [model.makeLayer(backend: "FLASH_ATTN")], "registered")
      XCTAssertEqual(backend.current.complaints, [])
      XCTAssertEqual(backend.current.newTokenRuns, 0)
    }
  }

  func testWorkspaceIsWhatIsNeeded() throws {
    var random = SplitMix64(seed: 83)
    let model = LayerModel(.bfloat16, numHeads: 2, dims: LayerModel.allDims[4], &random)
    let step = contextStep(model, [40, 700], &random)
    for algorithm in LayerModel.algorithms {
      let layer = try model.makeLayer(algorithm: algorithm)
      let bytes = try step.workspaceSize(layer)
      let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes, alignment: 64)
      defer { memory.deallocate() }
      XCTAssertEqual(try step.run(layer, workspace: memory).out.bits, try step.run(layer).out.bits)
    }
  }

  /// What results that are merged part by part have the same bits by: of an up-projected
  /// request on at most 1024 keys a row's are those of the query alone, on any table.
  func testARowDoesNotDependOnTheOthers() throws {
    var random = SplitMix64(seed: 84)
    for (i, isa) in KernelCase.isas.enumerated() {
      for format in ElementFormat.inputs {
        let model = LayerModel(
          format, numHeads: 2, dims: LayerModel.allDims[random.pick([0, 3, 4])], &random)
        let context = random.pick([1024, 1000, 70])
        let sequence = model.sequence(context + 400, &random)
        let step = LayerStep(model, [sequence], contexts: [context], &random)
        step.contextOnly = true
        let backends = BuiltInBackend.allCases.map(\.name)
        let layer = try model.makeLayer(
          backend: backends[(i + Int(format.rawValue)) % backends.count], maxISA: isa,
          algorithm: MLA_LAYER_ALGORITHM_UP_PROJECTED)
        let all = try step.run(layer)
        for first in [1, random.int(2...399), 399] {
          let rest = try step.run(layer, from: first)
          let row = model.numHeads * model.vDim
          // The texts of both would fill pages.
          XCTAssertTrue(
            rest.out.bits[(first * row)...] == all.out.bits[(first * row)...],
            "isa \(isa) \(format.name) from \(first)")
        }
      }
    }
  }

  private func contextStep(
    _ model: LayerModel, _ contexts: [Int], _ random: inout SplitMix64
  ) -> LayerStep {
    let sequences = contexts.map { model.sequence($0 + random.int(0...130), &random) }
    let step = LayerStep(model, sequences, contexts: contexts, blockSize: 16, &random)
    step.contextOnly = true
    return step
  }
}

extension LayerStep {
  /// Of one request the queries from one on, to where all would write theirs.
  fileprivate func run(_ layer: MLALayer, from first: Int) throws -> Result {
    let result = makeResult()
    try withArguments(out: result.out, lse: result.lse) { args in
      var tensors = [args.q.pointee, args.out.pointee, args.lse.pointee]
      for i in 0..<2 {
        tensors[i].shape.0 -= Int64(first)
        tensors[i].data += first * Int(tensors[i].strides.0) * (i == 0 ? q : result.out).format.byteCount
      }
      tensors[2].shape.1 -= Int64(first)
      tensors[2].data += first * 4
      let starts = [0, queryStarts[1] - Int32(first)]
      try tensors.withUnsafeBufferPointer { tensors in
        try starts.withUnsafeBufferPointer { starts in
          args.query_start_loc = starts.baseAddress
          args.q = tensors.baseAddress
          args.out = tensors.baseAddress! + 1
          args.lse = tensors.baseAddress! + 2
          try layer.forward(&args)
        }
      }
    }
    return result
  }
}
