import CMLAPrefill
import MLACore
import MLATestSupport
import XCTest

/// The whole layer against float64 from the same latents, and against itself.
final class LayerTests: XCTestCase {
  override func tearDownWithError() throws {
    try HostSettings.setThreads(0)
  }

  func testEveryDimensionAgainstFloat64() throws {
    var random = SplitMix64(seed: 31)
    for dims in LayerModel.allDims {
      for format in ElementFormat.inputs {
        let model = LayerModel(format, numHeads: 3, dims: dims, &random)
        let contexts = [0, random.int(1...150), 63, 0, 64, 5]
        let lengths = [random.int(1...100), 1, 65, 0, 17, 0]
        let sequences = zip(contexts, lengths).map { model.sequence($0 + $1, &random) }
        let step = LayerStep(
          model, sequences, contexts: contexts, blockSize: random.pick([1, 3, 16, 64, 128]),
          &random)
        try check(
          step, LayerModel.algorithms.map { try model.makeLayer(algorithm: $0) },
          "\(format.name) \(dims)")
      }
    }
  }

  func testEveryBackendTableAndLongContext() throws {
    var random = SplitMix64(seed: 32)
    let backends = BuiltInBackend.allCases.map(\.name)
    for (i, isa) in KernelCase.isas.enumerated() {
      for format in ElementFormat.inputs {
        let model = LayerModel(format, numHeads: 2, dims: LayerModel.allDims[4], &random)
        // The last request is one that FLASHINFER and CPU split.
        let contexts = [700, 0, 2100]
        let sequences = zip(contexts, [70, 90, 5]).map { model.sequence($0 + $1, &random) }
        let step = LayerStep(model, sequences, contexts: contexts, blockSize: 48, &random)
        let name = backends[(3 * i + Int(format.rawValue)) % backends.count]
        try check(
          step,
          LayerModel.algorithms.map {
            try model.makeLayer(backend: name, maxISA: isa, algorithm: $0)
          }, "isa \(isa) \(name)")
      }
    }
  }

  /// Not all of a host's tables give the same bits.
  func testACapIsKept() throws {
    var random = SplitMix64(seed: 41)
    let model = LayerModel(.bfloat16, numHeads: 2, dims: LayerModel.allDims[4], &random)
    let step = LayerStep(model, [model.sequence(80, &random)], contexts: [33], &random)
    let host = KernelTables.host.family.rawValue
    let free = try step.run(model.makeLayer()).out.bits
    let capped = try (1...host).map { try step.run(model.makeLayer(maxISA: $0)).out.bits }
    XCTAssertEqual(capped.last, free)
    XCTAssertEqual(capped.allSatisfy { $0 == free }, host == MLA_ISA_PORTABLE)
  }

  func testEveryCacheFormatAgainstFloat64OfTheDequantizedCache() throws {
    var random = SplitMix64(seed: 33)
    for format in ElementFormat.inputs {
      for cache in CacheModel.all {
        let dims = LayerModel.allDims[random.chance(0.5) || cache.code != 0 ? 0 : 3]
        let model = LayerModel(format, numHeads: 2, dims: dims, &random)
        let sequences = [200, 30].map { model.sequence($0, &random) }
        let step = LayerStep(
          model, sequences, contexts: [150, 29], cache: cache,
          blockSize: random.pick([1, 7, 16, 64, 100]), &random)
        try check(
          step,
          LayerModel.algorithms.map { try model.makeLayer(cache: cache, algorithm: $0) },
          "\(format.name), cache \(cache)")
      }
    }
  }

  /// Weights of another dtype are rounded to the layer's.
  func testWeightsOfEveryFormat() throws {
    var random = SplitMix64(seed: 34)
    for format in ElementFormat.inputs {
      for weights in ElementFormat.inputs {
        let model = LayerModel(
          format, numHeads: 2, dims: LayerModel.allDims[4], weights: weights, &random)
        let step = LayerStep(model, [model.sequence(80, &random)], contexts: [33], &random)
        try check(
          step, LayerModel.algorithms.map { try model.makeLayer(algorithm: $0) },
          "\(format.name), weights \(weights.name)")
      }
    }
  }

  /// Heads that begin and end within a block of scales, blocks that are cut short.
  func testQuantizedWeightsOfEveryDimension() throws {
    var random = SplitMix64(seed: 40)
    for dims in LayerModel.allDims + [(nope: 100, rope: 20, v: 60, rank: 300)] {
      for format in ElementFormat.inputs {
        let model = LayerModel(format, numHeads: 3, dims: dims, weights: .float8E4M3FN, &random)
        let step = LayerStep(model, [model.sequence(50, &random)], contexts: [20], &random)
        try check(
          step, LayerModel.algorithms.map { try model.makeLayer(algorithm: $0) },
          "\(format.name) \(dims)")
      }
    }
  }

  func testRecordedPromptsOfAnEngine() throws {
    let file = try Safetensors(
      path: #filePath.replacing(
        "MLACoreTests/LayerTests.swift", with: "Data/dsv2_fresh.safetensors"))
    var random = SplitMix64(seed: 35)
    var model = LayerModel(.bfloat16, numHeads: 4, dims: LayerModel.allDims[0], &random)
    model.scale = try XCTUnwrap(file.metadata["scale"].flatMap { Double($0) })
    // Recorded as [rank, heads, nope + v].
    let recorded = try file["kv_b_proj"].values
    for row in 0..<4 * 256 {
      for i in 0..<512 { model.weights[row, 0, i] = recorded[i * 4 * 256 + row] }
    }
    let starts = try file["query_start_loc"].integers.map(Int.init)
    func slice(_ name: String, _ rows: Range<Int>, heads: Int, dim: Int) throws -> PoisonedTensor {
      let values = try file[name].values
      let tensor = PoisonedTensor(.bfloat16, rows: rows.count, heads: heads, dim: dim)
      for (i, row) in rows.enumerated() {
        for h in 0..<heads {
          for d in 0..<dim { tensor[i, h, d] = values[(row * heads + h) * dim + d] }
        }
      }
      return tensor
    }
    let sequences = try (0..<starts.count - 1).map { i in
      let rows = starts[i]..<starts[i + 1]
      return LayerSequence(
        q: try slice("q", rows, heads: 4, dim: 192),
        latents: try slice("kv_c_normed", rows, heads: 1, dim: 512),
        rope: try slice("k_pe", rows, heads: 1, dim: 64))
    }
    let step = LayerStep(
      model, sequences, contexts: sequences.map { _ in 0 }, &random)
    let result = try step.run(model.makeLayer())
    let (out, lse) = (
      relativeL2(result.out.values, try file["out"].values),
      maxDifference(result.lse.values, try file["lse"].values)
    )
    XCTAssertLessThanOrEqual(out, 6e-3)
    XCTAssertLessThanOrEqual(lse, 2e-3)
  }

  /// Quantized once: what the same call gives in fp32, times the inverse of the
  /// scale; from whole tiles, from requests whose keys are split, and absorbed.
  func testQuantizedOutput() throws {
    var random = SplitMix64(seed: 40)
    for format in ElementFormat.inputs {
      for (backend, algorithm) in [
        ("FLASH_ATTN", MLA_LAYER_ALGORITHM_UP_PROJECTED), ("CPU", MLA_LAYER_ALGORITHM_UP_PROJECTED),
        ("FLASHINFER", MLA_LAYER_ALGORITHM_AUTO), ("FLASH_ATTN", MLA_LAYER_ALGORITHM_ABSORBED),
      ] {
        let model = LayerModel(format, numHeads: 2, dims: LayerModel.allDims[4], &random)
        let contexts = [0, 70, 2100]
        let sequences = zip(contexts, [40, 90, 5]).map { model.sequence($0 + $1, &random) }
        let step = LayerStep(model, sequences, contexts: contexts, &random)
        let layer = try model.makeLayer(backend: backend, algorithm: algorithm)
        let exact = try step.run(layer, quantizedBy: nil)
        for scale: Float in [0.004, 1.7, .leastNormalMagnitude] {
          let result = try step.run(layer, quantizedBy: scale)
          XCTAssertEqual(
            result.out.bits,
            float8Bits(of: exact.out, times: 1 / scale), backend)
          XCTAssertEqual(result.lse.bits, exact.lse.bits, backend)
          XCTAssertTrue(result.out.surroundingsAreIntact, backend)
        }
      }
    }
  }

  /// A prompt in steps, each putting its tokens into the cache for the next.
  func testChunkedEqualsUnchunked() throws {
    var random = SplitMix64(seed: 36)
    // The longer prompts take the absorbed form on the way.
    for (format, length, stepSize, blockSize) in [
      (ElementFormat.bfloat16, 211, 64, 16), (.bfloat16, 211, 7, 5), (.bfloat16, 211, 100, 1),
      (.bfloat16, 400, 3, 16), (.float16, 300, 33, 64), (.float32, 211, 128, 24),
    ] {
      let model = LayerModel(format, numHeads: 2, dims: LayerModel.allDims[0], &random)
      let sequence = model.sequence(length, &random)
      let layer = try model.makeLayer()
      let whole = try LayerStep(model, [sequence], contexts: [0], &random).run(layer)
      var (out, lse): ([Double], [[Double]]) = ([], [[], []])
      for begin in stride(from: 0, to: length, by: stepSize) {
        let step = LayerStep(
          model, [sequence], contexts: [begin], ends: [min(begin + stepSize, length)],
          blockSize: blockSize, &random)
        let result = try step.run(layer)
        out += result.out.values
        for head in 0..<2 { lse[head] += (0..<step.q.rows).map { result.lse[head, 0, $0] } }
      }
      XCTAssertLessThanOrEqual(relativeL2(out, whole.out.values), 4e-3, "steps of \(stepSize)")
      XCTAssertLessThanOrEqual(
        maxDifference(lse.flatMap { $0 }, whole.lse.values), 2e-3, "steps of \(stepSize)")
    }
  }

  func testSameBitsForAnyThreadsBatchAndBound() throws {
    var random = SplitMix64(seed: 37)
    let model = LayerModel(.bfloat16, numHeads: 6, dims: LayerModel.allDims[4], &random)
    for backend in ["FLASH_ATTN", "FLASHINFER", "CPU"] {
      try checkSameBits(model, bound: 4 << 20, backend, &random) {
        try model.makeLayer(backend: backend, bound: $0)
      }
    }
  }

  func testWorkspaceOfExactlyTheSizeAsked() throws {
    var random = SplitMix64(seed: 38)
    let model = LayerModel(.float32, numHeads: 2, dims: LayerModel.allDims[3], &random)
    let sequences = [150, 40].map { model.sequence($0, &random) }
    let step = LayerStep(model, sequences, contexts: [100, 0], &random)
    try step.runsInExactlyTheWorkspaceAsked(by: try model.makeLayer())
  }

  func testBatchesWithoutWork() throws {
    var random = SplitMix64(seed: 39)
    let model = LayerModel(.bfloat16, numHeads: 2, dims: LayerModel.allDims[4], &random)
    let layer = try model.makeLayer()
    _ = try LayerStep(model, [], contexts: [], &random).run(layer)
    // Context, but nobody to look at it: nothing of it is read.
    let idle = LayerStep(model, [model.sequence(20, &random)], contexts: [20], &random)
    _ = try idle.run(layer) { args in
      args.kv_cache = nil
      args.block_table = nil
    }
  }
}
