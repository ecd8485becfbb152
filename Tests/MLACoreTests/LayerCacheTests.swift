import CMLAPrefill
@testable import MLACore
import MLATestSupport
import XCTest

/// Putting tokens into a paged cache.
final class LayerCacheTests: XCTestCase {
  private let tokens = 70

  func testEveryFormatGoesToItsSlot() throws {
    var random = SplitMix64(seed: 41)
    for format in ElementFormat.inputs {
      for model in CacheModel.all {
        for _ in 0..<3 {
          let problem = CacheProblem(format, model, tokens, &random)
          try check(problem, "\(format.name) to \(model)")
        }
      }
    }
  }

  /// Of tokens with the same slot the last has it, though there are threads: no loop
  /// is run that could share them out. The tokens are neighbours, the last and the
  /// first of what two threads would take.
  func testLastOfEqualSlotsWins() throws {
    defer { try? HostSettings.setThreads(0) }
    try HostSettings.setThreads(5)
    let loops = Guarded(0)
    defer { HostSettings.setParallelFor(nil, context: nil) }
    HostSettings.setParallelFor(
      { context, count, task, taskContext in
        let loops = Unmanaged<Guarded<Int>>.fromOpaque(context!).takeUnretainedValue()
        loops.withLock { $0 += 1 }
        for i in 0..<count { task!(taskContext, i) }
      }, context: Unmanaged.passUnretained(loops).toOpaque())
    var random = SplitMix64(seed: 43)
    for model in CacheModel.all {
      try check(
        CacheProblem(.bfloat16, model, 1500, repeatingEvery: 64, &random), "\(model), repeating")
    }
    XCTAssertEqual(loops.withLock { $0 }, 0)
    try check(CacheProblem(.bfloat16, CacheModel.all[0], 1500, &random), "each slot once")
    XCTAssertEqual(loops.withLock { $0 }, 1)
  }

  func testSlotsThatMeetAgain() throws {
    var random = SplitMix64(seed: 44)
    var repeats = 0
    for round in 0..<400 {
      let blockSize = random.pick([1, 16, 64, 100] as [Int64])
      let first = random.pick([0, 1 << 40] as [Int64])
      var blocks = Array(0..<Int64(random.int(1...40)))
      if random.chance(0.7) { blocks.shuffle(using: &random) }
      var slots = blocks.flatMap { block in
        (0..<blockSize).map { random.chance(0.1) ? -1 : first + block * blockSize + $0 }
      }
      if random.chance(0.5) {
        slots[random.int(0...slots.count - 1)] = slots[random.int(0...slots.count - 1)]
      }
      let used = slots.filter { $0 >= 0 }
      let expected = Set(used).count < used.count
      XCTAssertEqual(try meetAgain(slots), expected, "round \(round)")
      repeats += expected ? 1 : 0
    }
    XCTAssertGreaterThan(repeats, 50)
  }

  /// Which slots of a group of 64 were met is a bit each.
  func testEverySlotOfAGroupMeetsAgain() throws {
    for slot in Int64(0)..<192 {
      let once = [500, slot, slot ^ 1, slot + 64]
      XCTAssertFalse(try meetAgain(once), "\(slot)")
      XCTAssertTrue(try meetAgain(once + [slot]), "\(slot)")
      XCTAssertTrue(try meetAgain([500, slot, slot]), "\(slot), next to itself")
    }
  }

  private func meetAgain(_ slots: [Int64]) throws -> Bool {
    try slots.withUnsafeBufferPointer { slots in
      try SlotRuns(FixedArray(copying: slots, for: "slots")).meetAgain()
    }
  }

  private func check(_ problem: CacheProblem, _ what: String) throws {
    let cache = problem.cache
    try problem.run()
    let last = Dictionary(problem.slots.enumerated().map { ($1, $0) }) { $1 }
    for (slot, token) in last where slot >= 0 {
      let (block, offset) = Int(slot).quotientAndRemainder(dividingBy: cache.heads)
      let expected = problem.model.bits(
        latents: problem.latents.values(row: token), rope: problem.rope.values(row: token))
      XCTAssertEqual(cache.slot(block, offset), expected, what)
    }
    // Slots of no token, and whatever lies between slots, are as they were.
    let written = Set(problem.slots)
    for slot in 0..<cache.rows * cache.heads where !written.contains(Int64(slot)) {
      let (block, offset) = slot.quotientAndRemainder(dividingBy: cache.heads)
      XCTAssertTrue(cache.slot(block, offset).allSatisfy { $0 == cache.format.poison }, what)
    }
    XCTAssertTrue(cache.surroundingsAreIntact, what)
  }

  private func check(
    _ text: String, cache: CacheModel = .plain(.float8E4M3FN, scale: 0.125),
    _ change: (inout mla_concat_and_cache_args) -> Void
  ) {
    var random = SplitMix64(seed: 42)
    let problem = CacheProblem(.bfloat16, cache, tokens, &random)
    let before = problem.cache.bits
    XCTAssertThrowsError(try problem.run(change: change), text) { error in
      XCTAssertTrue("\(error)".contains(text), "\(error), not \(text)")
    }
    XCTAssertEqual(problem.cache.bits, before, text)
  }

  func testBadArgumentsAreRefusedByName() {
    for scale in [0, -1, Float.nan, .infinity] {
      check("cache_scale = ") { $0.cache_scale = scale }
    }
    check("cache_scale = 2", cache: .plain(.bfloat16)) { $0.cache_scale = 2 }
    check("cache_scale = 2", cache: .dsMLA) { $0.cache_scale = 2 }
    check("cache_format = 2") { $0.cache_format = 2 }
    check("kv_cache.shape[2] = 43: must be 656") {
      ($0.cache_format, $0.cache_scale) = (1, 0)
    }
    check("args.reserved = 3") { $0.reserved = 3 }
    check("kv_c_normed = NULL") { $0.kv_c_normed = nil }
    check("k_pe = NULL") { $0.k_pe = nil }
    check("kv_cache = NULL") { $0.kv_cache = nil }
    check("slot_mapping = NULL") { $0.slot_mapping = nil }
    check("num_slots = -1") { $0.num_slots = -1 }
    check("num_slots = 71") { $0.num_slots = 71 }
    for slot in [-2, 110, Int64.min, .max] {
      var slots = [Int64](repeating: -1, count: tokens)
      slots[3] = slot
      slots.withUnsafeBufferPointer { slots in
        check("slot_mapping[3] = \(slot)") { $0.slot_mapping = slots.baseAddress }
      }
    }
  }

  private func check(
    _ text: String, cache: CacheModel = .plain(.float8E4M3FN, scale: 0.125),
    _ field: WritableKeyPath<mla_concat_and_cache_args, UnsafePointer<mla_tensor>?>,
    _ change: (inout mla_tensor) -> Void
  ) {
    var changed = mla_tensor()
    check(text, cache: cache) { args in
      changed = args[keyPath: field]!.pointee
      change(&changed)
      args.num_slots = 0
      withUnsafePointer(to: &changed) { args[keyPath: field] = $0 }
    }
  }

  func testBadTensorsAreRefusedByName() {
    check("k_pe.shape[1] = 6: must be 5", \.kv_cache) { $0.shape.2 -= 1 }
    check("kv_cache.shape[2] = 655: must be 656", cache: .dsMLA, \.kv_cache) { $0.shape.2 -= 1 }
    check("kv_cache.strides[1] = 657: must be even", cache: .dsMLA, \.kv_cache) {
      ($0.shape.0, $0.strides.1) = (1, 657)
    }
    check("kv_cache.dtype = MLA_DTYPE_BFLOAT16: must be", cache: .dsMLA, \.kv_cache) { tensor in
      (tensor.dtype, tensor.shape.0) = (3, 1)
    }
    check("kv_c_normed.shape[1] = 511: must be 512", cache: .dsMLA, \.kv_c_normed) {
      $0.shape.1 -= 1
    }
    check("k_pe.shape[1] = 63: must be 64", cache: .dsMLA, \.k_pe) { $0.shape.1 -= 1 }
  }
}

private final class CacheProblem {
  let model: CacheModel
  let latents: PoisonedTensor
  let rope: PoisonedTensor
  let cache: PoisonedTensor
  let slots: [Int64]

  init(
    _ format: ElementFormat, _ model: CacheModel, _ tokens: Int, repeatingEvery period: Int? = nil,
    _ random: inout SplitMix64
  ) {
    self.model = model
    let (rank, ropeDim) = model.code == 0 ? (37, 6) : (512, 64)
    latents = PoisonedTensor(format, rows: tokens, dim: rank, rowGap: random.int(0...5))
    rope = PoisonedTensor(format, rows: tokens, dim: ropeDim, rowGap: random.int(0...5))
    latents.fillNormal(&random)
    rope.fillNormal(&random)
    let blockSize = random.pick([1, 7, 8, 16])
    let blocks = max(110, tokens + 16) / blockSize
    cache = PoisonedTensor(
      model.format, rows: blocks, heads: blockSize, dim: model.width(rank: rank, rope: ropeDim),
      headGap: 2 * random.int(0...2), rowGap: random.int(0...5))
    let places = Array(0..<Int64(blocks * blockSize)).shuffled(using: &random)
    slots = (0..<tokens).map { token in
      token % 5 == 2 ? -1 : places[period.map { token % $0 == 0 } == true ? max(0, token - 1) : token]
    }
  }

  func run(change: (inout mla_concat_and_cache_args) -> Void = { _ in }) throws {
    var tensors = [view(latents), view(rope), view(cache, rank: 3)]
    try tensors.withUnsafeMutableBufferPointer { tensors in
      try slots.withUnsafeBufferPointer { slots in
        let first = UnsafePointer(tensors.baseAddress!)
        var args = mla_concat_and_cache_args(
          struct_size: UInt32(MemoryLayout<mla_concat_and_cache_args>.size),
          cache_scale: model.scale, kv_c_normed: first, k_pe: first + 1,
          slot_mapping: slots.baseAddress, num_slots: Int64(slots.count), kv_cache: first + 2,
          stream: nil, cache_format: model.code, reserved: 0, k_pe_cache: nil)
        change(&args)
        try ConcatAndCache.run(ConcatAndCacheArguments(&args))
      }
    }
  }
}
