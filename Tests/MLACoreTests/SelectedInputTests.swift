import CMLAPrefill
import MLATestSupport
import XCTest

@testable import MLACore

/// What a layer refuses of selected keys and of new tokens in the cache, and that nothing is
/// written then.
final class SelectedInputTests: XCTestCase {
  override func tearDownWithError() throws {
    try Registry.shared.override("FLASH_ATTN", nil)
  }

  private var random = SplitMix64(seed: 111)
  private lazy var model = LayerModel(
    .bfloat16, numHeads: 2, dims: LayerModel.allDims[4], &random)

  func testPositions() throws {
    let layer = try model.makeLayer()
    // The first and the last token of each request: how many keys they see.
    for (token, seen) in [(0, 21), (19, 40), (20, 1), (24, 5)] {
      let step = makeStep()
      for wrong in [seen, -2, Int(Int32.max), Int(Int32.min)] {
        var row = step.selection![token]
        row[3] = wrong
        step.selection!.set(token, row)
        step.isRefused(by: layer, "topk_indices[\(token)][3] = \(wrong): must be -1 to \(seen - 1)")
      }
    }
    let context = makeStep()
    context.contextOnly = true
    context.selection = Selection(context.rows { _ in [] }, topk: 6)
    XCTAssertNoThrow(try context.run(layer))
    context.selection!.set(19, [20])
    context.isRefused(by: layer, "topk_indices[19][0] = 20: must be -1 to 19, in the request")
    context.selection!.set(19, [])
    context.selection!.set(20, [0])
    context.isRefused(by: layer, "topk_indices[20][0] = 0: must be -1 to -1")
  }

  func testFields() throws {
    let (layer, step) = (try model.makeLayer(), makeStep())
    for topk in [0, -1, Int32.min] {
      step.isRefused(by: layer, "topk = \(topk): must be at least 1") { $0.topk = topk }
    }
    for stride in [5, 0, -1, Int64.min] {
      step.isRefused(by: layer, "topk_stride = \(stride): must be at least topk (6)") {
        $0.topk_stride = stride
      }
    }
    step.isRefused(by: layer, "topk_stride = \(Int64.max): reaches beyond the address space") {
      $0.topk_stride = .max
    }
    step.isRefused(by: layer, "must be aligned to its elements of 4 bytes") { args in
      args.topk_indices = UnsafePointer(
        bitPattern: UInt(bitPattern: args.topk_indices!) + 2)
    }
    for value in [2, -1, Int32.max] {
      step.isRefused(by: layer, "new_tokens_cached = \(value): must be 0 to 1") {
        $0.new_tokens_cached = value
      }
    }
    step.isRefused(by: layer, "new_tokens_cached = 1: must be 0 with MLA_LAYER_CONTEXT_ONLY") {
      ($0.new_tokens_cached, $0.flags) = (1, UInt64(MLA_LAYER_CONTEXT_ONLY))
    }
    // Both are read with indices alone.
    step.selection = nil
    XCTAssertNoThrow(try step.run(layer) { ($0.topk, $0.topk_stride) = (-3, -7) })
  }

  func testNewTokensMustBeInTheCache() throws {
    let layer = try model.makeLayer()
    let sequences = [40, 5].map { model.sequence($0, &random) }
    let step = LayerStep(
      model, sequences, contexts: [20, 0], blockSize: 8, newTokensCached: true, &random)
    XCTAssertNoThrow(try step.run(layer))
    step.isRefused(by: layer, "kv_cache = NULL") { $0.kv_cache = nil }
    step.isRefused(by: layer, "block_table = NULL") { $0.block_table = nil }
    step.isRefused(
      by: layer, "context_lens[0] and its new tokens = 40: must not be beyond the 32 tokens"
    ) { $0.max_blocks = 4 }
    step.isRefused(by: layer, "kv_c_normed = NULL") { $0.new_tokens_cached = 0 }
    step.cache.table[step.cache.tableStride] = -1
    step.isRefused(by: layer, "block_table[1][0] = -1: must be 0 to")
  }

  func testWhereNoneIsServed() throws {
    let step = makeStep()
    let upProjected = try model.makeLayer(algorithm: MLA_LAYER_ALGORITHM_UP_PROJECTED)
    step.isRefused(by: upProjected, "topk_indices = not NULL: the layer")
    XCTAssertThrowsError(try step.workspaceSize(upProjected)) { error in
      XCTAssertEqual((error as? MLAError)?.status, mla_status(MLA_ERROR_UNSUPPORTED_CONFIGURATION))
    }
    let backend = DelegatingBackend("FLASH_ATTN")
    try Registry.shared.override("FLASH_ATTN", request(vtable: backend.vtable))
    let registered = try model.makeLayer(backend: "FLASH_ATTN")
    step.isRefused(by: registered, "topk_indices = not NULL: is for layers on the CPU whose backend")
    step.selection = nil
    step.isRefused(by: registered, "new_tokens_cached = 1: is for layers on the CPU whose backend") {
      $0.new_tokens_cached = 1
    }
    XCTAssertNoThrow(try step.run(registered))
  }

  /// Two requests of 20 and 5 tokens, one on a context of 20, each of which selects its own.
  private func makeStep() -> LayerStep {
    let step = LayerStep(
      model, [40, 5].map { model.sequence($0, &random) }, contexts: [20, 0], &random)
    step.selection = Selection(step.rows { [$0 - 1] }, topk: 6)
    return step
  }
}
