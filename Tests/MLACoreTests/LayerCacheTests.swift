import CMLAPrefill
import MLACore
import MLATestSupport
import XCTest

/// Putting tokens into a paged cache.
final class LayerCacheTests: XCTestCase {
  private let (rank, rope, tokens) = (37, 6, 70)

  func testEveryFormatGoesToItsSlot() throws {
    var random = SplitMix64(seed: 41)
    for format in ElementFormat.inputs {
      for cacheFormat in ElementFormat.allCases {
        let problem = CacheProblem(format, cacheFormat, rank: rank, rope: rope, tokens, &random)
        try problem.run()
        for (token, slot) in problem.slots.enumerated() where slot >= 0 {
          let (block, offset) = Int(slot).quotientAndRemainder(dividingBy: problem.cache.heads)
          for d in 0..<rank + rope {
            let value =
              d < rank ? problem.latents[token, 0, d] : problem.rope[token, 0, d - rank]
            XCTAssertTrue(
              cacheFormat.isNearest(
                problem.cache[block, offset, d], to: value / Double(problem.scale), slack: 0),
              "\(format.name) to \(cacheFormat.name)")
          }
        }
        // Slots of no token, and whatever lies between slots, are as they were.
        let written = Set(problem.slots)
        let places = problem.cache.rows * problem.cache.heads
        for slot in 0..<places where !written.contains(Int64(slot)) {
          let (block, offset) = slot.quotientAndRemainder(dividingBy: problem.cache.heads)
          let bits = cacheFormat.loadBits(problem.cache.pointer(row: block, head: offset))
          XCTAssertEqual(bits, cacheFormat.poison)
        }
        XCTAssertTrue(problem.cache.surroundingsAreIntact)
      }
    }
  }

  func testBadInputIsRefusedByName() throws {
    var random = SplitMix64(seed: 42)
    func check(
      _ text: String, cache: ElementFormat = .float8E4M3FN,
      _ change: (inout mla_concat_and_cache_args) -> Void
    ) {
      let problem = CacheProblem(.bfloat16, cache, rank: rank, rope: rope, tokens, &random)
      let before = problem.cache.bits
      XCTAssertThrowsError(try problem.run(change: change), text) { error in
        XCTAssertTrue("\(error)".contains(text), "\(error), not \(text)")
      }
      XCTAssertEqual(problem.cache.bits, before, text)
    }
    for scale in [0, -1, Float.nan, .infinity] {
      check("cache_scale = ") { $0.cache_scale = scale }
    }
    check("cache_scale = 2", cache: .bfloat16) { $0.cache_scale = 2 }
    check("kv_c_normed = NULL") { $0.kv_c_normed = nil }
    check("k_pe = NULL") { $0.k_pe = nil }
    check("kv_cache = NULL") { $0.kv_cache = nil }
    check("slot_mapping = NULL") { $0.slot_mapping = nil }
    check("num_slots = -1") { $0.num_slots = -1 }
    check("num_slots = 71") { $0.num_slots = 71 }
    for slot in [-2, 13 * 8, Int64.min, .max] {
      var slots = [Int64](repeating: -1, count: tokens)
      slots[3] = slot
      slots.withUnsafeBufferPointer { slots in
        check("slot_mapping[3] = \(slot)") { $0.slot_mapping = slots.baseAddress }
      }
    }
    var narrow = mla_tensor()
    check("k_pe.shape[1] = 6: must be 5") { args in
      narrow = args.kv_cache.pointee
      narrow.shape.2 -= 1
      withUnsafePointer(to: &narrow) { args.kv_cache = $0 }
    }
  }
}

private final class CacheProblem {
  let latents: PoisonedTensor
  let rope: PoisonedTensor
  let cache: PoisonedTensor
  let slots: [Int64]
  let scale: Float

  init(
    _ format: ElementFormat, _ cacheFormat: ElementFormat, rank: Int, rope ropeDim: Int,
    _ tokens: Int, _ random: inout SplitMix64
  ) {
    latents = PoisonedTensor(format, rows: tokens, dim: rank, rowGap: random.int(0...5))
    rope = PoisonedTensor(format, rows: tokens, dim: ropeDim, rowGap: random.int(0...5))
    latents.fillNormal(&random)
    rope.fillNormal(&random)
    cache = PoisonedTensor(
      cacheFormat, rows: 13, heads: 8, dim: rank + ropeDim, headGap: random.int(0...3),
      rowGap: random.int(0...5))
    scale = cacheFormat == .float8E4M3FN ? 0.125 : 1
    let places = Array(0..<Int64(13 * 8)).shuffled(using: &random)
    slots = (0..<tokens).map { $0 % 5 == 2 ? -1 : places[$0] }
  }

  func run(change: (inout mla_concat_and_cache_args) -> Void = { _ in }) throws {
    var tensors = [view(latents), view(rope), view(cache, rank: 3)]
    try tensors.withUnsafeMutableBufferPointer { tensors in
      try slots.withUnsafeBufferPointer { slots in
        let first = UnsafePointer(tensors.baseAddress!)
        var args = mla_concat_and_cache_args(
          struct_size: UInt32(MemoryLayout<mla_concat_and_cache_args>.size), cache_scale: scale,
          kv_c_normed: first, k_pe: first + 1, slot_mapping: slots.baseAddress,
          num_slots: Int64(slots.count), kv_cache: first + 2, stream: nil)
        change(&args)
        ConcatAndCache.run(try ConcatAndCacheArguments(&args))
      }
    }
  }
}
