import CMLAPrefill
import MLATestSupport
import XCTest

@testable import MLACore

/// Requests of which not even one head fits into the memory that is allowed: key
/// ranges take turns in it, and groups of queries where there are many.
final class LongContextTests: XCTestCase {
  override func tearDownWithError() throws {
    try HostSettings.setThreads(0)
  }

  func testLongContextsInTheLeastMemory() throws {
    var random = SplitMix64(seed: 71)
    for (format, backend) in [(ElementFormat.bfloat16, "CPU"), (.float32, "FLASH_ATTN")] {
      let model = LayerModel(format, numHeads: 2, dims: LayerModel.allDims[5], &random)
      let contexts = [20_000, 7200, 0]
      let sequences = zip(contexts, [40, 1100, 30]).map { model.sequence($0 + $1, &random) }
      let step = LayerStep(model, sequences, contexts: contexts, &random)
      func makeLayer(bound: Int64) throws -> MLALayer {
        try model.makeLayer(
          backend: backend, bound: bound, algorithm: MLA_LAYER_ALGORITHM_UP_PROJECTED)
      }
      let free = try makeLayer(bound: 0)
      try HostSettings.setThreads(1)
      let expected = try step.run(free)
      let least = try leastBound(step, try makeLayer(bound: 1))
      XCTAssertLessThan(least, try step.workspaceSize(free) * 2 / 3)
      let layers = try [least, least + least / 2, 3 * least].map {
        try makeLayer(bound: Int64($0))
      }
      for threads in [1, 3] as [Int32] {
        try HostSettings.setThreads(threads)
        for (i, layer) in layers.enumerated() {
          let what = "\(format.name), layer \(i), \(threads) threads"
          let result = try step.run(layer)
          XCTAssertEqual(result.out.bits, expected.out.bits, what)
          XCTAssertEqual(result.lse.bits, expected.lse.bits, what)
        }
      }
      try check(step, [layers[0], free], format.name)
      let exact = try step.run(free, quantizedBy: nil)
      for layer in [layers[0], free] {
        XCTAssertEqual(
          try step.run(layer, quantizedBy: 0.01).out.bits, float8Bits(of: exact.out, times: 1 / 0.01),
          format.name)
      }
    }
  }

  /// 512 new tokens on 128k and 1M tokens, 16 heads of 192 and 128 in bf16.
  func testLayersOfRealModelsStayWithinTheirBound() throws {
    var random = SplitMix64(seed: 72)
    let model = LayerModel(.bfloat16, numHeads: 16, dims: LayerModel.allDims[0], &random)
    for (bound, context) in [(16 << 20, 131_072), (64 << 20, 131_072), (64 << 20, 1 << 20)] {
      let layer = try model.makeLayer(bound: Int64(bound))
      let starts: [Int32] = [0, 512]
      let contexts = [Int32(context)]
      try starts.withUnsafeBufferPointer { starts in
        try contexts.withUnsafeBufferPointer { contexts in
          var args = mla_layer_forward_args()
          args.struct_size = UInt32(MemoryLayout<mla_layer_forward_args>.size)
          args.num_requests = 1
          args.query_start_loc = starts.baseAddress
          args.context_lens = contexts.baseAddress
          XCTAssertLessThanOrEqual(try layer.workspaceSize(&args), Int64(bound))
        }
      }
    }
  }

  /// Within three quarters of what would be taken, all threads still have work.
  func testWavesGetSmallerBeforeThreadsGetFewer() throws {
    var random = SplitMix64(seed: 73)
    let model = LayerModel(.bfloat16, numHeads: 16, dims: LayerModel.allDims[4], &random)
    let step = LayerStep(model, [model.sequence(2100, &random)], contexts: [2000], &random)
    let result = step.makeResult()
    func plan(bound: Int) throws -> (threads: Int, bytes: Int) {
      var read: LayerConfig?
      _ = try model.makeLayer(bound: Int64(bound)) { read = try? LayerConfig.read(&$0).0 }
      let config = try XCTUnwrap(read)
      let plan = try step.withArguments(out: result.out, lse: result.lse) {
        try LayerPlan(
          LayerArguments($0, config).batch, config, split: .never, KernelTables.table(cappedAt: 0))
      }
      return (try XCTUnwrap(plan.upProjected).schedule.threads, plan.bytes)
    }
    try HostSettings.setThreads(4)
    let free = try plan(bound: 0)
    XCTAssertEqual(free.threads, 4)
    let bound = free.bytes * 3 / 4
    let bounded = try plan(bound: bound)
    XCTAssertEqual(bounded.threads, 4)
    XCTAssertLessThanOrEqual(bounded.bytes, bound)
  }

  /// As the refusal of too small a bound says it.
  private func leastBound(_ step: LayerStep, _ layer: MLALayer) throws -> Int {
    do {
      _ = try step.workspaceSize(layer)
    } catch {
      let words = "\(error)".split(separator: " ")
      let place = try XCTUnwrap(words.firstIndex(of: "needs"))
      return try XCTUnwrap(Int(words[place + 1]))
    }
    XCTFail("1 byte was enough")
    return 0
  }
}
