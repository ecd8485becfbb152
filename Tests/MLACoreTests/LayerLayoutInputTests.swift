import CMLAPrefill
import MLACore
import MLATestSupport
import XCTest

/// What is refused of caches in their layouts, by name and value.
final class LayerLayoutInputTests: XCTestCase {
  private typealias Change = (inout mla_layer_forward_args) -> Void

  private var random = SplitMix64(seed: 91)
  private lazy var model = LayerModel(
    .bfloat16, numHeads: 2, dims: LayerModel.allDims[4], &random)
  private lazy var sequences = [40, 25, 30].map { model.sequence($0, &random) }

  private func step(_ layout: (inout CacheLayout) -> Void) -> LayerStep {
    LayerStep(
      model, sequences, contexts: [20, 0, 16], blockSize: 8, &random, layout: layout)
  }

  private func check(_ text: String, _ step: LayerStep, _ change: Change = { _ in }) throws {
    step.isRefused(by: try model.makeLayer(), text, change)
  }

  private func check(
    _ text: String, _ step: LayerStep,
    _ field: WritableKeyPath<mla_layer_forward_args, UnsafePointer<mla_tensor>?>,
    _ change: (inout mla_tensor) -> Void
  ) throws {
    var changed = mla_tensor()
    try check(text, step) { args in
      changed = args[keyPath: field]!.pointee
      change(&changed)
      withUnsafePointer(to: &changed) { args[keyPath: field] = $0 }
    }
  }

  func testTwoTensors() throws {
    let two = step { $0.ropeFormat = .bfloat16 }
    try check("kv_cache.shape[2] = 256: must be 288, kv_lora_rank + qk", two) {
      $0.k_pe_cache = nil
    }
    try check("kv_cache.shape[2] = 288: must be 256, kv_lora_rank, beside", two, \.kv_cache) {
      $0.shape.2 = 288
    }
    try check("k_pe_cache.shape[2] = 31: must be 32", two, \.k_pe_cache) { $0.shape.2 = 31 }
    try check("k_pe_cache.shape[1] = 7: must be 8, that of", two, \.k_pe_cache) { $0.shape.1 = 7 }
    try check("k_pe_cache.shape[0] = 3: must be ", two, \.k_pe_cache) { $0.shape.0 = 3 }
    try check("k_pe_cache.ndim = 2: must be 3", two, \.k_pe_cache) { $0.ndim = 2 }
    try check("k_pe_cache.dtype = 77", two, \.k_pe_cache) { $0.dtype = 77 }
    try check("k_pe_cache.data = NULL", two, \.k_pe_cache) { $0.data = nil }
    try check("kv_cache.ndim = 4: must be 2 or 3", two, \.kv_cache) { $0.ndim = 4 }
    try check("kv_cache = NULL", two) { args in
      (args.kv_cache, args.context_lens) = (nil, nil)
    }
    let rope = two.cache.rope!
    for output in [\mla_layer_forward_args.out, \.lse] {
      var moved = view(rope, rank: 3)
      try check("must not overlap k_pe_cache", two) { args in
        moved.data = args[keyPath: output]!.pointee.data
        withUnsafePointer(to: &moved) { args.k_pe_cache = $0 }
      }
    }
    try check("must not overlap k_pe_cache", two) {
      ($0.workspace, $0.workspace_size) = (rope.pointer(), 4)
    }
  }

  func testDsMLAIsOneTensor() throws {
    let model = LayerModel(.bfloat16, numHeads: 2, dims: LayerModel.allDims[0], &random)
    let step = LayerStep(
      model, [model.sequence(9, &random)], contexts: [5], cache: .dsMLA, &random)
    let layer = try model.makeLayer(cache: .dsMLA)
    XCTAssertThrowsError(try step.run(layer) { $0.k_pe_cache = $0.kv_cache }) { error in
      XCTAssertTrue("\(error)".contains("k_pe_cache = not NULL: must be NULL but with"), "\(error)")
    }
  }

  func testBlocksWithoutATable() throws {
    let dense = step { $0.isDense = true }
    let size = dense.cache.layout.blockSize
    let text = "block_table = NULL: must not be NULL unless max_blocks"
    try check(text + " (0) is 0 and kv_cache has a block for each request: 2 for 3", dense, \.kv_cache)
    { $0.shape.0 = 2 }
    try check(text + " (1)", dense) { $0.max_blocks = 1 }
    try check(text, step { _ in }) { ($0.block_table, $0.max_blocks) = (nil, 0) }
    try check("block_table_rows = not NULL: must be NULL without", dense) {
      $0.block_table_rows = $0.context_lens
    }
    dense.contextLens[2] = Int32(size + 1)
    try check(
      "context_lens[2] = \(size + 1): must not be beyond the \(size) tokens that a block of kv_cache "
        + "holds", dense)
  }

  func testContextStarts() throws {
    let padded = step { ($0.isPadded, $0.isDense) = (true, true) }
    let size = padded.cache.layout.blockSize
    func check(_ start: Int, at i: Int, _ text: String) throws {
      let before = padded.cache.starts
      padded.cache.starts[i] = Int32(start)
      try self.check(text, padded)
      padded.cache.starts = before
    }
    for start in [-1, Int(Int32.min), size + 1, Int(Int32.max)] {
      try check(
        start, at: 2, "context_starts[2] = \(start): must be 0 to \(size), the tokens that a block")
    }
    try check(
      size - 19, at: 0,
      "context_lens[0] = 20: must not be beyond the 19 tokens that a block of kv_cache holds from "
        + "context_starts[0] (\(size - 19)) on")
    let blocks = step { $0.isPadded = true }
    blocks.cache.starts[2] = Int32(8 * blocks.cache.maxBlocks - 15)
    try self.check(
      "context_lens[2] = 16: must not be beyond the 15 tokens that max_blocks "
        + "(\(blocks.cache.maxBlocks)) blocks of kv_cache, 8 each, hold from context_starts[2]", blocks)
  }

  func testTableRows() throws {
    let rows = step { $0.hasTableRows = true }
    for (i, row) in [(0, -1), (2, 6), (2, Int(Int32.max)), (0, Int(Int32.min))] {
      let before = rows.cache.tableRows
      rows.cache.tableRows[i] = Int32(row)
      try check("block_table_rows[\(i)] = \(row): must be 0 to 5", rows)
      rows.cache.tableRows = before
    }
    for count in [-1, Int64.min, .max, 0] {
      try check(
        count == 0 ? "block_table_rows[0] = " : "num_table_rows = \(count): must be 0 to", rows
      ) { $0.num_table_rows = count }
    }
    try check("block_table_stride = 1: must be at least max_blocks", rows) {
      $0.block_table_stride = 1
    }
    try check("reaches beyond the address space", rows) { $0.block_table_stride = .max / 16 }
    let row = Int(rows.cache.tableRows[2])
    rows.cache.table[row * rows.cache.tableStride + 1] = 99
    try check("block_table[\(row)][1] = 99: must be 0 to ", rows)
  }
}
