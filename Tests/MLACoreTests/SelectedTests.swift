import CMLAPrefill
import MLATestSupport
import XCTest

@testable import MLACore

/// Tokens that attend to the keys that their caller has selected: against float64, the dense
/// forms and itself.
final class SelectedTests: XCTestCase {
  override func tearDownWithError() throws {
    try HostSettings.setThreads(0)
  }

  func testEveryTableAgainstFloat64() throws {
    var random = SplitMix64(seed: 91)
    for isa in KernelCase.isas {
      for format in ElementFormat.inputs {
        for dims in LayerModel.allDims {
          // Projecting in float64 takes long.
          let heads = dims.3 > 100 ? 3 : random.pick([1, 2, 3, 16, 17, 33, 50])
          let model = LayerModel(format, numHeads: heads, dims: dims, &random)
          let hasSlots = dims.3 == 512 && [0, 64].contains(dims.1)
          let cache = random.pick(CacheModel.all.filter { (c: CacheModel) in c.code == 0 || hasSlots })
          let contexts = (0..<3).map { _ in random.pick([0, 1, 63, 64, 65, 128, random.int(1...300)]) }
          let step = makeStep(
            model, contexts, [random.int(0...9), 1, random.int(1...5)], cache: cache,
            newTokensCached: random.chance(0.5), &random)
          step.select(random.pick([1, 7, 64, 65, 150]), &random)
          try check(
            step, [try model.makeLayer(cache: cache, maxISA: isa, algorithm: algorithm(&random))],
            "isa \(isa) \(format.name) \(model.numHeads) heads \(dims), cache \(cache)", fewKeys: 2)
        }
      }
    }
  }

  /// Windows of positions that follow each other, and what is beyond a token's own.
  func testAscendingPositions() {
    let window = AscendingPositions.windowBytes * 8
    for limit in [1, 64, 65, window - 1, window, window + 1, 2 * window + 70] {
      let all = [0, 1, 63, 64, window - 1, window, window + 63, 2 * window + 69]
      let listed = all.map(Int32.init) + [-1] + all.reversed().map(Int32.init) + [-1]
      XCTAssertEqual(ascending(listed, limit: limit), all.filter { $0 < limit })
    }
    XCTAssertEqual(ascending([-1, -1], limit: 100), [])
  }

  private func ascending(_ row: [Int32], limit: Int) -> [Int] {
    withUnsafeTemporaryAllocation(byteCount: AscendingPositions.windowBytes, alignment: 64) { window in
      window.initializeMemory(as: UInt8.self, repeating: 0xFF)
      return row.withUnsafeBufferPointer { row in
        var all: [Int] = []
        var positions = AscendingPositions(row, limit: limit, window: window.baseAddress!)
        var three: [Int32] = [0, 0, 0]
        while true {
          let count = three.withUnsafeMutableBufferPointer { positions.next(3, to: $0.baseAddress!) }
          all += three[..<count].map(Int.init)
          if count < 3 { break }
        }
        for skipped in 0...all.count + 1 {
          var others = AscendingPositions(row, limit: limit, window: window.baseAddress!)
          XCTAssertEqual(others.skip(skipped), min(skipped, all.count))
          var one: Int32 = -5
          XCTAssertEqual(others.next(1, to: &one), skipped < all.count ? 1 : 0)
          XCTAssertEqual(Int(one), skipped < all.count ? all[skipped] : -5)
        }
        return all
      }
    }
  }

  /// Not more than 1.2 times that of the dense absorbed form on the same keys.
  func testErrorIsThatOfTheDenseForm() throws {
    var random = SplitMix64(seed: 93)
    for isa in KernelCase.isas {
      for format in ElementFormat.inputs {
        let model = LayerModel(format, numHeads: 4, dims: LayerModel.allDims[0], &random)
        let layer = try model.makeLayer(maxISA: isa, algorithm: MLA_LAYER_ALGORITHM_ABSORBED)
        var (selected, dense) = (0.0, 0.0)
        for _ in 0..<4 {
          let sequence = model.sequence(400, &random)
          let keys = Array((0..<399).shuffled(using: &random).prefix(200)).sorted() + [399]
          let step = LayerStep(model, [sequence], contexts: [399], &random)
          step.selection = Selection([keys])
          let few = LayerSequence(
            q: sequence.q.rows(keys), latents: sequence.latents.rows(keys),
            rope: sequence.rope.rows(keys))
          let alone = LayerStep(model, [few], contexts: [200], &random)
          selected += relativeL2(try step.run(layer, quantizedBy: nil).out.values, step.reference().out)
          dense += relativeL2(try alone.run(layer, quantizedBy: nil).out.values, alone.reference().out)
        }
        XCTAssertLessThanOrEqual(selected, 1.2 * dense, "isa \(isa) \(format.name)")
      }
    }
  }

  func testOrderAndRepetitionsHaveNoEffect() throws {
    var random = SplitMix64(seed: 94)
    for format in ElementFormat.inputs {
      let model = LayerModel(format, numHeads: 5, dims: LayerModel.allDims[4], &random)
      let step = makeStep(model, [500, 90], [6, 40], &random)
      step.select(120, &random)
      let layer = try model.makeLayer()
      let expected = try step.run(layer)
      for _ in 0..<3 {
        step.selection = step.selection?.reordered(&random)
        let result = try step.run(layer)
        XCTAssertEqual(result.out.bits, expected.out.bits)
        XCTAssertEqual(result.lse.bits, expected.lse.bits)
      }
    }
  }

  /// A request whose tokens list all that they see is a dense one, if only one of them lists
  /// less it is none.
  func testAllKeysAreTheDenseForms() throws {
    var random = SplitMix64(seed: 95)
    for algorithm in [MLA_LAYER_ALGORITHM_AUTO, MLA_LAYER_ALGORITHM_ABSORBED] {
      let model = LayerModel(.bfloat16, numHeads: 2, dims: LayerModel.allDims[3], &random)
      let layer = try model.makeLayer(algorithm: algorithm)
      let step = makeStep(model, [0, 300, 17], [70, 2, 0], &random)
      let dense = try step.run(layer)
      step.selectAll(&random)
      let (all, formsOfAll) = try runTelling(step, layer)
      XCTAssertEqual(formsOfAll["selected"], 0)
      XCTAssertEqual(formsOfAll.values.reduce(0, +), 2)
      XCTAssertEqual(all.out.bits, dense.out.bits)
      XCTAssertEqual(all.lse.bits, dense.lse.bits)
      let last = step.q.rows - 1
      let rest = step.selection![last].filter { $0 > 5 }
      step.selection?.set(last, rest)
      let (fewer, formsOfFewer) = try runTelling(step, layer)
      XCTAssertEqual(formsOfFewer["selected"], 1)
      XCTAssertEqual(formsOfFewer.values.reduce(0, +), 2)
      let row = model.numHeads * model.vDim
      XCTAssertEqual(
        Array(fewer.out.bits[..<(70 * row)]), Array(dense.out.bits[..<(70 * row)]))
      let (sparse, expected) = (
        Array(fewer.out.values[(70 * row)..<(71 * row)]), Array(dense.out.values[(70 * row)..<(71 * row)])
      )
      XCTAssertLessThanOrEqual(relativeL2(sparse, expected), 7e-3)
      try check(step, [layer], "all but one")
    }
  }

  /// - Returns: the result, and to each form how many requests have been given, as the library
  ///   tells of it: bits may be those of another form.
  private func runTelling(_ step: LayerStep, _ layer: MLALayer) throws
    -> (LayerStep.Result, forms: [String: Int])
  {
    final class Lines { var all: [String] = [] }
    let (lines, level) = (Lines(), Verbose.level)
    try Verbose.set(
      2,
      { lines, _, line in
        let lines = Unmanaged<Lines>.fromOpaque(lines!).takeUnretainedValue()
        lines.all.append(String(cString: line!))
      }, context: Unmanaged.passUnretained(lines).toOpaque())
    defer { XCTAssertNoThrow(try Verbose.set(level, nil, context: nil)) }
    let result = try step.run(layer)
    let prefix = "mla_verbose,plan,layer,"
    let plans = lines.all.filter { $0.hasPrefix(prefix) }
    XCTAssertEqual(plans.count, 1)
    let counts = plans.joined().dropFirst(prefix.count).split(separator: " ").compactMap { word in
      let parts = word.split(separator: ":")
      return parts.count == 2 ? Int(parts[1]).map { (String(parts[0]), $0) } : nil
    }
    return (result, Dictionary(uniqueKeysWithValues: counts))
  }

  func testSameBitsForAnyThreadsBatchAndBound() throws {
    var random = SplitMix64(seed: 96)
    let model = LayerModel(.bfloat16, numHeads: 6, dims: LayerModel.allDims[4], &random)
    let contexts = [0, 1300, 64, 2500, 1]
    let step = makeStep(model, contexts, [90, 40, 1, 3, 129], &random)
    step.select(700, &random)
    try HostSettings.setThreads(1)
    let layer = try model.makeLayer()
    let expected = try step.run(layer)
    for bound in [0, 2 << 20, 1 << 30] as [Int64] {
      let bounded = try model.makeLayer(bound: bound)
      for threads in [1, 2, 3, 5] as [Int32] {
        try HostSettings.setThreads(threads)
        if bound > 0 { XCTAssertLessThanOrEqual(try step.workspaceSize(bounded), Int(bound)) }
        let result = try step.run(bounded)
        XCTAssertEqual(result.out.bits, expected.out.bits, "\(threads) threads, bound \(bound)")
        XCTAssertEqual(result.lse.bits, expected.lse.bits, "\(threads) threads, bound \(bound)")
      }
    }
    for (i, sequence) in step.sequences.enumerated() {
      let alone = LayerStep(model, [sequence], contexts: [contexts[i]], blockSize: 5, &random)
      let first = Int(step.queryStarts[i])
      alone.selection = Selection(
        (first..<first + alone.q.rows).map { step.selection![$0] }, topk: 700, gap: 0)
      let row = model.numHeads * model.vDim
      XCTAssertEqual(
        try alone.run(layer).out.bits,
        Array(expected.out.bits[first * row..<(first + alone.q.rows) * row]), "request \(i)")
    }
  }

  func testContextOnlyAndTokensWithoutKeys() throws {
    var random = SplitMix64(seed: 97)
    let model = LayerModel(.bfloat16, numHeads: 3, dims: LayerModel.allDims[4], &random)
    for isContextOnly in [false, true] {
      let step = makeStep(model, [90, 0, 70], [4, 3, 65], &random)
      step.contextOnly = isContextOnly
      step.select(40, &random)
      for token in [0, 5, step.q.rows - 1] { step.selection?.set(token, []) }
      try check(step, [try model.makeLayer()], "context only \(isContextOnly)", fewKeys: 2)
      let result = try step.run(try model.makeLayer())
      for head in 0..<3 {
        XCTAssertTrue((0..<model.vDim).allSatisfy { result.out[0, head, $0] == 0 })
        XCTAssertEqual(result.lse[head, 0, 0], -.infinity)
      }
    }
  }

  /// What is read from a cache of the layer's dtype is what was handed in.
  func testNewTokensFromTheCacheAreTheSame() throws {
    var random = SplitMix64(seed: 98)
    for format in ElementFormat.inputs {
      let model = LayerModel(format, numHeads: 2, dims: LayerModel.allDims[4], &random)
      let sequences = [310, 40].map { model.sequence($0, &random) }
      let steps = [false, true].map {
        LayerStep(model, sequences, contexts: [300, 0], newTokensCached: $0, &random)
      }
      for algorithm in LayerModel.algorithms {
        let layer = try model.makeLayer(algorithm: algorithm)
        let (handedIn, cached) = (try steps[0].run(layer), try steps[1].run(layer))
        XCTAssertEqual(cached.out.bits, handedIn.out.bits, "\(format.name) \(algorithm)")
        XCTAssertEqual(cached.lse.bits, handedIn.lse.bits, "\(format.name) \(algorithm)")
      }
      for cache in CacheModel.all where cache.code == 0 {
        let step = LayerStep(
          model, sequences, contexts: [300, 0], cache: cache, newTokensCached: true, &random)
        try check(
          step, LayerModel.algorithms.map { try model.makeLayer(cache: cache, algorithm: $0) },
          "\(format.name), new tokens in a cache of \(cache)")
      }
    }
  }

  func testWorkspaceOfExactlyTheSizeAsked() throws {
    var random = SplitMix64(seed: 99)
    for (format, dims) in [(ElementFormat.bfloat16, 5), (.float32, 0), (.bfloat16, 6)] {
      let model = LayerModel(format, numHeads: 3, dims: LayerModel.allDims[dims], &random)
      let step = makeStep(model, [1100, 0], [50, 40], &random)
      step.select(100, &random)
      let layer = try model.makeLayer()
      try step.runsInExactlyTheWorkspaceAsked(by: layer)
    }
  }

  func testQuantizedOutput() throws {
    var random = SplitMix64(seed: 100)
    let model = LayerModel(.bfloat16, numHeads: 2, dims: LayerModel.allDims[4], &random)
    let step = makeStep(model, [700, 3], [5, 9], &random)
    step.select(90, &random)
    let layer = try model.makeLayer()
    let exact = try step.run(layer, quantizedBy: nil)
    for scale: Float in [0.004, 1.7] {
      let result = try step.run(layer, quantizedBy: scale)
      XCTAssertEqual(result.out.bits, float8Bits(of: exact.out, times: 1 / scale))
      XCTAssertEqual(result.lse.bits, exact.lse.bits)
    }
  }

  private func makeStep(
    _ model: LayerModel, _ contexts: [Int], _ lengths: [Int], cache: CacheModel? = nil,
    newTokensCached: Bool = false, _ random: inout SplitMix64
  ) -> LayerStep {
    LayerStep(
      model, zip(contexts, lengths).map { model.sequence($0 + $1, &random) }, contexts: contexts,
      cache: cache, blockSize: random.pick([1, 7, 16, 64]), newTokensCached: newTokensCached,
      &random)
  }

  private func algorithm(_ random: inout SplitMix64) -> Int {
    random.pick([MLA_LAYER_ALGORITHM_AUTO, MLA_LAYER_ALGORITHM_ABSORBED])
  }
}

extension PoisonedTensor {
  /// Some of its rows.
  fileprivate func rows(_ rows: [Int]) -> PoisonedTensor {
    let some = PoisonedTensor(format, rows: rows.count, heads: heads, dim: dim)
    for (i, row) in rows.enumerated() {
      for head in 0..<heads { for d in 0..<dim { some[i, head, d] = self[row, head, d] } }
    }
    return some
  }
}
