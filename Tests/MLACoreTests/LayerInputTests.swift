import CMLAPrefill
import MLACore
import MLATestSupport
import XCTest

/// What a layer refuses, by name and value, and that nothing is written then.
final class LayerInputTests: XCTestCase {
  private typealias Change = (inout mla_layer_forward_args) -> Void

  private var random = SplitMix64(seed: 51)
  private lazy var model = LayerModel(
    .bfloat16, numHeads: 2, dims: LayerModel.allDims[4], &random)
  private lazy var sequences = [40, 25, 30].map { model.sequence($0, &random) }

  func testForwardArguments() throws {
    try check("query_start_loc = NULL") { $0.query_start_loc = nil }
    try check("num_requests = -1") { $0.num_requests = -1 }
    try check("args.reserved = 1") { $0.reserved = 1 }
    try check("flags = 3: must be bits of MLA_LAYER_") { $0.flags = 3 }
    try check("args.struct_size = 3") { $0.struct_size = 3 }
    try check("q = NULL") { $0.q = nil }
    try check("kv_c_normed = NULL") { $0.kv_c_normed = nil }
    try check("k_pe = NULL") { $0.k_pe = nil }
    try check("out = NULL") { $0.out = nil }
    try check("stream = ") { $0.stream = UnsafeMutableRawPointer(bitPattern: 8) }
    try check("workspace = NULL: workspace_size is 5") { $0.workspace_size = 5 }
    try check("kv_cache.shape[2] = 96: must be 288") { swap(&$0.q, &$0.kv_cache) }
    try check("kv_c_normed.shape[1] = 32: must be 256") { swap(&$0.kv_c_normed, &$0.k_pe) }
    for scale in [0, -1, Float.nan, .infinity] {
      try withUnsafePointer(to: scale) { scale in
        try check("output_scale = ") { $0.output_scale = scale }
      }
    }
    try withUnsafePointer(to: Float(1)) { scale in
      try check("output_scale = 1.0: must be given with an fp8 output and only then") {
        $0.output_scale = scale
      }
    }
    var overlapping = mla_tensor()
    typealias Args = mla_layer_forward_args
    for (output, input) in [(\Args.out, \Args.q), (\.lse, \.kv_cache)] {
      try check(".data = ") { args in
        overlapping = args[keyPath: output]!.pointee
        overlapping.data = args[keyPath: input]!.pointee.data
        withUnsafePointer(to: &overlapping) { args[keyPath: output] = $0 }
      }
    }
  }

  func testContextsAndBlocks() throws {
    try check("kv_cache = NULL") { $0.kv_cache = nil }
    try check("block_table = NULL") { $0.block_table = nil }
    try check("max_blocks = -4") { $0.max_blocks = -4 }
    try check("block_table_stride = 1: must be at least max_blocks") { $0.block_table_stride = 1 }
    try check("block_table_stride = \(Int64.max)") { $0.block_table_stride = .max }
    // 20 cached tokens in blocks of 8.
    try check("context_lens[0] = 20: must not be beyond the 16") { $0.max_blocks = 2 }
    for block in [-1, Int32.min, .max, 8] {
      try check("block_table[2][1] = \(block): must be 0 to 7", change: { step in
        step.cache.table[2 * step.cache.tableStride + 1] = block
      })
    }
    try check("context_lens[1] = -3", change: { $0.contextLens[1] = -3 })
    try check("context_lens[1] = \(Int32.max)", change: { $0.contextLens[1] = .max })
    try check("query_start_loc[3] = 900", change: { $0.queryStarts[3] = 900 })
    try check("query_start_loc[2] = 0", change: { $0.queryStarts[2] = 0 })
  }

  func testCacheTypeAndWidth() throws {
    let step = makeStep(cache: .plain(.float16))
    step.isRefused(
      by: try model.makeLayer(),
      "kv_cache.dtype = MLA_DTYPE_FLOAT16: must be MLA_DTYPE_BFLOAT16")
    let wide = makeStep()
    for change in [1, -1] as [Int64] {
      var tensor = view(wide.cache.tensor, rank: 3)
      tensor.shape.2 += change
      try withUnsafePointer(to: &tensor) { tensor in
        wide.isRefused(by: try model.makeLayer(), "kv_cache.shape[2]") { $0.kv_cache = tensor }
      }
    }
    var empty = view(wide.cache.tensor, rank: 3)
    empty.shape.1 = 0
    try withUnsafePointer(to: &empty) { empty in
      wide.isRefused(by: try model.makeLayer(), "kv_cache.shape[1] = 0") { $0.kv_cache = empty }
    }
  }

  func testDsMLACache() throws {
    func check(_ text: String, _ model: LayerModel, _ change: (inout mla_layer_config) -> Void) {
      XCTAssertThrowsError(try model.makeLayer(cache: .dsMLA, change: change), text) { error in
        XCTAssertTrue("\(error)".contains(text), "\(error), not \(text)")
      }
    }
    check("config.kv_lora_rank = 256: must be 512", model) { _ in }
    let wide = LayerModel(.bfloat16, numHeads: 1, dims: LayerModel.allDims[0], &random)
    check("config.cache_dtype = MLA_DTYPE_BFLOAT16: must be", wide) { $0.cache_dtype = 3 }
    check("config.cache_scale = 0.5: must be 0 or 1", wide) { $0.cache_scale = 0.5 }
    check("config.cache_format = 2: must be one of", wide) { $0.cache_format = 2 }
    check("config.cache_format = -1: must be one of", wide) { $0.cache_format = -1 }
    check("config.qk_rope_head_dim = 32: must be 64 or 0", wide) { $0.qk_rope_head_dim = 32 }
    let step = LayerStep(
      wide, [wide.sequence(9, &random)], contexts: [5], cache: .dsMLA, blockSize: 8, &random)
    for (text, change) in [
      ("kv_cache.shape[2] = 576: must be 656", { $0.shape.2 = 576 }),
      ("kv_cache.strides[1] = 657: must be even", { $0.strides.1 = 657 }),
      ("kv_cache.dtype = MLA_DTYPE_FLOAT16: must be", { $0.dtype = 2 }),
    ] as [(String, (inout mla_tensor) -> Void)] {
      var tensor = view(step.cache.tensor, rank: 3)
      // One block: any stride stays within the memory.
      tensor.shape.0 = 1
      change(&tensor)
      let layer = try wide.makeLayer(cache: .dsMLA)
      withUnsafePointer(to: &tensor) { tensor in
        step.isRefused(by: layer, text) { $0.kv_cache = tensor }
      }
    }
  }

  func testWeightScales() throws {
    // 9 rows of blocks, 2 columns.
    let model = LayerModel(
      .bfloat16, numHeads: 9, dims: LayerModel.allDims[4], weights: .float8E4M3FN, &random)
    let blocks = PoisonedTensor(.float32, rows: 9, dim: 2, rowGap: 1)
    func check(
      _ text: String, of model: LayerModel, _ change: (inout mla_tensor) -> Void = { _ in }
    ) {
      var tensor = view(blocks)
      change(&tensor)
      func make() throws {
        try withUnsafePointer(to: &tensor) { tensor in
          _ = try model.makeLayer { $0.weight_scales = tensor }
        }
      }
      XCTAssertThrowsError(try make(), text) { error in
        XCTAssertTrue("\(error)".contains(text), "\(error), not \(text)")
      }
    }
    for row in 0..<9 { for column in 0..<2 { blocks[row, 0, column] = 0.5 } }
    check("config.weight_scales.shape[0] = 8: must be 9", of: model) { $0.shape.0 = 8 }
    check("config.weight_scales.shape[1] = 3: must be 2", of: model) { $0.shape.1 = 3 }
    for count in [0, 9, 1151, 1153] as [Int64] {
      check("config.weight_scales.shape[0] = \(count): must be 1, or 1152", of: model) {
        ($0.ndim, $0.shape.0, $0.strides.0) = (1, count, 1)
      }
      check("config.weight_scales.shape[\(count == 9 ? 1 : 0)] = ", of: model) {
        ($0.shape.0, $0.shape.1) = (count, 1)
      }
    }
    check("config.weight_scales.ndim = 3: must be 2", of: model) { $0.ndim = 3 }
    check("config.weight_scales.dtype = MLA_DTYPE_BFLOAT16", of: model) { $0.dtype = 3 }
    check("config.weight_scales.data = NULL", of: model) { $0.data = nil }
    check("must be NULL for a kv_b_proj of MLA_DTYPE_BFLOAT16", of: self.model)
    for scale in [0, -1, Double.nan, .infinity] {
      blocks[7, 0, 1] = scale
      check("config.weight_scales[7][1] = \(Float(scale)): must be finite and above 0", of: model)
      check("config.weight_scales[0] = \(Float(scale)): must be", of: model) {
        ($0.ndim, $0.shape.0) = (1, 1)
        $0.data = blocks.pointer(row: 7) + 4
      }
      blocks[7, 0, 1] = 0.5
    }
    func refused(_ text: String, _ change: (inout mla_layer_config) -> Void) {
      XCTAssertThrowsError(try model.makeLayer(change: change), text) { error in
        XCTAssertTrue("\(error)".contains(text), "\(error), not \(text)")
      }
    }
    refused("config.weight_scales = NULL") { $0.weight_scales = nil }
    refused("config.dtype = MLA_DTYPE_FLOAT8_E4M3FN: must be") { $0.dtype = 0 }
  }

  func testWorkspaceAndBoundSayWhatIsNeeded() throws {
    let (step, layer) = (makeStep(), try model.makeLayer())
    let size = try step.workspaceSize(layer)
    let memory = GuardedMemory(byteCount: size)
    let short = UnsafeMutableRawBufferPointer(start: memory.base, count: size - 1)
    XCTAssertThrowsError(try step.run(layer, workspace: short)) { error in
      XCTAssertTrue(
        "\(error)".contains("workspace_size = \(size - 1): this run needs \(size) bytes"),
        "\(error)")
    }
    let bounded = try model.makeLayer(bound: 4096)
    var needed: Int64 = 0
    XCTAssertThrowsError(try step.run(bounded)) { error in
      let text = "\(error)"
      XCTAssertTrue(text.contains("config.workspace_bound = 4096: this batch needs "), text)
      needed = text.split(separator: " ").compactMap { Int64($0) }.max() ?? 0
    }
    let (enough, tooLittle) = (
      try model.makeLayer(bound: needed), try model.makeLayer(bound: needed - 1)
    )
    XCTAssertNoThrow(try step.run(enough), "\(needed)")
    XCTAssertThrowsError(try step.run(tooLittle), "\(needed)")
  }

  func testConfiguration() throws {
    func check(_ text: String, _ make: @autoclosure () throws -> MLALayer) {
      XCTAssertThrowsError(try make(), text) { error in
        XCTAssertTrue("\(error)".contains(text), "\(error), not \(text)")
      }
    }
    XCTAssertThrowsError(try Registry.shared.makeLayer(nil))
    check("config.workspace_bound = -1", try model.makeLayer(bound: -1))
    check("config.max_isa = 77", try model.makeLayer(maxISA: 77))
    check("NOBODY", try model.makeLayer(backend: "NOBODY"))
    check("CUSTOM", try model.makeLayer(backend: "CUSTOM"))
    for scale in [0, -1, Double.nan, .infinity] {
      let cache = CacheModel.plain(.float8E4M3FN, scale: scale)
      check("config.cache_scale = ", try model.makeLayer(cache: cache))
    }
    check("config.cache_scale = 2.0", try model.makeLayer { $0.cache_scale = 2 })
    var changed = model
    changed.scale = .nan
    check("config.scale", try changed.makeLayer())
    for (numHeads, dims, text) in [
      (3, LayerModel.allDims[4], "config.kv_b_proj.shape[0] = 256: must be 384"),
      (2, (64, 32, 64, 255), "config.kv_b_proj.shape[1] = 256: must be 255"),
      (2, (64, 32, 64, 0), "config.kv_lora_rank = 0"),
    ] {
      check(text, try LayerModel(model, numHeads: numHeads, dims: dims).makeLayer())
    }
  }

  private func makeStep(cache: CacheModel? = nil) -> LayerStep {
    LayerStep(
      model, sequences, contexts: [20, 0, 16], cache: cache, blockSize: 8, &random)
  }

  private func check(_ text: String, _ changeArguments: Change) throws {
    makeStep().isRefused(by: try model.makeLayer(), text, changeArguments)
  }

  private func check(_ text: String, change: (LayerStep) -> Void) throws {
    let step = makeStep()
    change(step)
    step.isRefused(by: try model.makeLayer(), text)
  }
}
