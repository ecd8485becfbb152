import CMLAPrefill
import MLATestSupport
import XCTest

@testable import MLACore

/// Caches laid out as engines have them, against float64 from what they hold.
final class LayerLayoutTests: XCTestCase {
  private let member = "FLASH_ATTN"

  override func tearDownWithError() throws {
    try Registry.shared.override(member, nil)
  }

  private static let layouts: [(name: String, change: @Sendable (inout CacheLayout) -> Void)] = [
    ("two tensors", { $0.ropeFormat = $0.model.format }),
    ("dense", { $0.isDense = true }),
    ("padded", { ($0.isPadded, $0.blockSize) = (true, 7) }),
    ("in order", { ($0.isInOrder, $0.blockSize) = (true, 8) }),
    ("tokens", { ($0.isFlat, $0.blockSize) = (true, 1) }),
    ("tokens in order", { ($0.isFlat, $0.blockSize, $0.isInOrder) = (true, 1, true) }),
    ("rows of a table", { ($0.hasTableRows, $0.isPadded) = (true, true) }),
    (
      "dense in two tensors, padded",
      { ($0.isDense, $0.isPadded, $0.ropeFormat) = (true, true, $0.model.format) }
    ),
    (
      "two tensors of tokens in order",
      { ($0.ropeFormat, $0.isFlat, $0.blockSize, $0.isInOrder) = ($0.model.format, true, 1, true) }
    ),
    (
      "two tensors of padded blocks in order, by row",
      { layout in
        (layout.ropeFormat, layout.blockSize, layout.isInOrder) = (layout.model.format, 5, true)
        (layout.isPadded, layout.hasTableRows) = (true, true)
      }
    ),
  ]

  func testEveryLayoutOfEveryFormat() throws {
    var random = SplitMix64(seed: 81)
    for format in ElementFormat.inputs {
      for cache in CacheModel.all {
        for layout in Self.layouts {
          let dims = LayerModel.allDims[cache.code == 0 ? 4 : 0]
          let model = LayerModel(format, numHeads: 2, dims: dims, &random)
          let step = try self.step(model, cache, &random, layout.change)
          guard let step else { continue }
          try check(
            step, LayerModel.algorithms.map { try model.makeLayer(cache: cache, algorithm: $0) },
            "\(format.name), \(cache), \(layout.name)")
        }
      }
    }
  }

  func testRotaryKeysOfAnotherType() throws {
    var random = SplitMix64(seed: 82)
    for cache in CacheModel.all where cache.code == 0 {
      for rope in ElementFormat.allCases {
        let model = LayerModel(
          random.pick(ElementFormat.inputs), numHeads: 2, dims: LayerModel.allDims[4], &random)
        let step = try XCTUnwrap(step(model, cache, &random) { $0.ropeFormat = rope })
        try check(step, [model.makeLayer(cache: cache)], "\(cache), rope \(rope.name)")
      }
    }
  }

  func testNoRotaryKeys() throws {
    var random = SplitMix64(seed: 83)
    let model = LayerModel(.bfloat16, numHeads: 2, dims: LayerModel.allDims[2], &random)
    XCTAssertEqual(model.rope, 0)
    let step = try XCTUnwrap(step(model, .plain(.bfloat16), &random) { $0.ropeFormat = .bfloat16 })
    let layer = try model.makeLayer()
    try check(step, [layer], "no rotary keys")
    let result = try step.run(layer)
    var nowhere = view(try XCTUnwrap(step.cache.rope), rank: 3)
    nowhere.data = nil
    let again = try withUnsafePointer(to: nowhere) { nowhere in
      try step.run(layer) { $0.k_pe_cache = nowhere }
    }
    XCTAssertEqual(again.out.bits, result.out.bits)
  }

  /// The same tokens have the same bits wherever they lie.
  func testLayoutsBearOnNoBits() throws {
    var random = SplitMix64(seed: 84)
    let model = LayerModel(.bfloat16, numHeads: 3, dims: LayerModel.allDims[3], &random)
    let contexts = [700, 0, 40]
    let sequences = zip(contexts, [3, 70, 30]).map { model.sequence($0 + $1, &random) }
    let layer = try model.makeLayer()
    let expected = try LayerStep(model, sequences, contexts: contexts, &random).run(layer)
    for layout in Self.layouts {
      let step = LayerStep(model, sequences, contexts: contexts, &random, layout: layout.change)
      let result = try step.run(layer)
      XCTAssertEqual(result.out.bits, expected.out.bits, layout.name)
      XCTAssertEqual(result.lse.bits, expected.lse.bits, layout.name)
    }
  }

  func testRegisteredBackends() throws {
    var random = SplitMix64(seed: 85)
    for layout in Self.layouts {
      let model = LayerModel(.float16, numHeads: 3, dims: LayerModel.allDims[3], &random)
      let step = try XCTUnwrap(step(model, .plain(.float16), &random, layout.change))
      let backend = DelegatingBackend(member)
      try Registry.shared.override(member, request(vtable: backend.vtable))
      try check(step, [model.makeLayer(backend: member)], "registered, \(layout.name)")
      XCTAssertEqual(backend.current.complaints, [], layout.name)
      XCTAssertEqual(backend.current.newTokenRuns, 1)
    }
  }

  /// nil where the format has no such layout.
  private func step(
    _ model: LayerModel, _ cache: CacheModel, _ random: inout SplitMix64,
    _ layout: (inout CacheLayout) -> Void
  ) throws -> LayerStep? {
    var probe = CacheLayout(model: cache, blockSize: 16)
    layout(&probe)
    if cache.code != 0 && probe.ropeFormat != nil { return nil }
    // One of them takes the absorbed form where costs decide, one has no new tokens.
    let contexts = [90, 0, random.int(1...60), 300, 20]
    let lengths = [30, random.int(1...20), 3, 1, 0]
    let sequences = zip(contexts, lengths).map { model.sequence($0 + $1, &random) }
    return LayerStep(
      model, sequences, contexts: contexts, cache: cache, &random, layout: layout)
  }
}
